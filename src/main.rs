//! Parses the command line and runs the command: starts the logs, runs the app, and turns its end into an exit code.

use std::process::ExitCode;

use backend_signal::{
    app::App,
    config::{Arguments, Command, EarlyExit, Endpoint, ServeOptions},
    drain, healthcheck, telemetry,
    terminal::{fail, print},
};

/// The system's allocator takes three times as much memory for an idle stream, and does not free it after a spike of connections.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Arguments::from_process() {
        Ok(Command::Serve(options)) => serve(*options),
        Ok(Command::Healthcheck(endpoint)) => check_health(&endpoint),
        Err(EarlyExit::Print(text)) => print(&text),
        Err(EarlyExit::Fail(reason)) => fail(2, &reason),
    }
}

fn check_health(Endpoint { host, port, tls_cert }: &Endpoint) -> ExitCode {
    match healthcheck::run(host, *port, tls_cert.is_some()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &format!("the daemon on --host {host} --port {port} is not healthy: {error}")),
    }
}

fn serve(options: ServeOptions) -> ExitCode {
    let threads = options.worker_threads.or(std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime.block_on(run(options)),
        Err(error) => fail(2, &format!("cannot start: {error}")),
    }
}

async fn run(options: ServeOptions) -> ExitCode {
    let endpoint = format!("{}:{}", options.endpoint.host, options.endpoint.port);
    let (level, format) = (options.log, options.log_format);
    let (app, mut next_signal) = match App::bind(options).and_then(|app| Ok((app, drain::stop_signals()?))) {
        Ok(bound) => bound,
        Err(error) => return fail(2, &format!("cannot serve on {endpoint}: {error}")),
    };
    let _log = telemetry::start(level, format);
    telemetry::count_panics(app.metrics());
    tracing::info!("listening on {}", app.local_addr());
    let drain = app.drain();
    let mut running = std::pin::pin!(app.run());
    tokio::select! {
        ended = &mut running => return ExitCode::from(u8::from(ended.is_err())),
        () = next_signal() => drain.start(),
    }
    tokio::select! {
        ended = running => ExitCode::from(u8::from(ended.is_err())),
        () = next_signal() => ExitCode::FAILURE, // A second signal does not wait for the drain.
    }
}

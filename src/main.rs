//! Parses the command line and runs the command: starts the logs, runs the app, and turns its end into an exit code.

use std::process::ExitCode;

use backend_signal::{
    app::App,
    config::{Arguments, Command, EarlyExit, Endpoint, ServeOptions},
    drain::StopSignals,
    healthcheck, telemetry,
    terminal::{fail, print},
};

/// The system's allocator takes three times as much memory for an idle stream, and does not free it after a spike of connections.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // First: before this, SIGTERM ends the process without a drain, and the system drops it if the process is PID 1.
    let Ok(signals) = StopSignals::install() else { return fail(2, "cannot handle signals") };
    match Arguments::from_process() {
        Ok(Command::Serve(options)) => serve(*options, signals),
        Ok(Command::Healthcheck(endpoint)) => check_health(&endpoint, signals),
        Err(EarlyExit::Print(text)) => print(&text),
        Err(EarlyExit::Fail(reason)) => fail(2, &reason),
    }
}

fn check_health(Endpoint { host, port, tls_cert }: &Endpoint, mut signals: StopSignals) -> ExitCode {
    match healthcheck::run(host, *port, tls_cert.is_some(), signals.next()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &format!("the daemon on --host {host} --port {port} is not healthy: {error}")),
    }
}

fn serve(options: ServeOptions, signals: StopSignals) -> ExitCode {
    let threads = options.worker_threads.or(std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(2, &format!("cannot start: {error}")),
    };
    let code = runtime.block_on(run(options, signals));
    // Dropping the runtime would wait for its thread that may still resolve the host name.
    runtime.shutdown_background();
    code
}

async fn run(options: ServeOptions, mut signals: StopSignals) -> ExitCode {
    let (endpoint, level, format) = (options.endpoint.to_string(), options.log, options.log_format);
    let app = match signals.unless_first(App::bind(options)).await {
        Some(Ok(app)) => app,
        Some(Err(error)) => return fail(2, &format!("cannot serve on {endpoint}: {error}")),
        None => return ExitCode::SUCCESS,
    };
    let _log = telemetry::start(level, format);
    telemetry::count_panics(app.metrics());
    app.local_addrs().iter().for_each(|address| tracing::info!("listening on {address}"));
    let ended = signals.drain_on_first(&app.drain(), app.run()).await;
    if ended == Some(Ok(())) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

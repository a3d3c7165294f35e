//! Reads the configuration, starts the logs, runs the app, and says how it ended.

use std::process::ExitCode;

use backend_signal::{
    admin,
    app::App,
    config::{Command, Config, Refused},
    drain, telemetry,
    terminal::{fail, print},
};

/// Frees what many short-lived connections took, where the system's allocator keeps three times as much for a stream.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(Refused::Answered(text)) => return print(&text),
        Err(Refused::Wrong(reason)) => return fail(&reason),
    };
    if let Some(Command::Healthcheck) = config.command {
        return ExitCode::from(u8::from(!admin::is_healthy(config.port, config.tls_cert.is_some())));
    }
    let threads = config.worker_threads.or(std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(config)),
        Err(error) => fail(&format!("cannot start: {error}")),
    }
}

async fn serve(config: Config) -> ExitCode {
    let wanted = format!("{}:{}", config.host, config.port);
    let (level, format) = (config.log, config.log_format);
    let (app, mut stop) = match App::bind(config).and_then(|app| Ok((app, drain::signals()?))) {
        Ok(bound) => bound,
        Err(error) => return fail(&format!("cannot serve on {wanted}: {error}")),
    };
    let _log = telemetry::start(level, format);
    telemetry::watch_panics(app.metrics());
    tracing::info!("listening on {}", app.local_addr());
    let drain = app.drain();
    let mut running = std::pin::pin!(app.run());
    tokio::select! {
        ended = &mut running => return ExitCode::from(u8::from(ended.is_err())),
        () = stop() => drain.start(),
    }
    tokio::select! {
        ended = running => ExitCode::from(u8::from(ended.is_err())),
        () = stop() => ExitCode::FAILURE,
    }
}

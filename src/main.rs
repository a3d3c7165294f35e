//! Parses the command line and runs the command: starts the logs, runs the app, and turns its end into an exit code.

use std::{io, process::ExitCode};

use backend_signal::{
    app::{App, Checked},
    cli,
    config::{Arguments, Command, EarlyExit, Endpoint, ServeOptions},
    drain::StopSignals,
    healthcheck, telemetry,
    terminal::{fail, print},
};
#[cfg(not(feature = "jemalloc"))]
use mimalloc::MiMalloc as Allocator;
#[cfg(feature = "jemalloc")]
use tikv_jemallocator::Jemalloc as Allocator;

/// Both take a third of the system's memory for an idle stream. jemalloc takes a fifth less and ships; mimalloc builds in seconds.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    // First: before this, SIGTERM ends the process without a drain, and the system drops it if the process is PID 1.
    let Ok(signals) = StopSignals::install() else { return fail(2, "cannot handle signals") };
    match Arguments::from_process() {
        Ok(Command::Serve(options)) => serve(*options, signals).unwrap_or_else(|error| fail(2, error)),
        Ok(Command::CheckConfig(options)) => App::check(&options).map_or_else(|error| fail(2, error), Checked::confirm),
        Ok(Command::Cluster(view)) => App::show_nodes(&view, signals),
        Ok(Command::Healthcheck(endpoint)) => check_health(&endpoint, signals),
        Ok(Command::Client(command)) => cli::run(*command, signals),
        Err(EarlyExit::Print(text)) => print(&text),
        Err(EarlyExit::Fail(reason)) => fail(2, reason),
    }
}

fn check_health(Endpoint { host, port, tls_cert }: &Endpoint, mut signals: StopSignals) -> ExitCode {
    let outcome = healthcheck::run(host, *port, tls_cert.is_some(), signals.next());
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    fail(1, format!("the daemon on --host {host} --port {port} is not healthy: {error}"))
}

fn serve(options: ServeOptions, signals: StopSignals) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(options.threads()).enable_all().build()?;
    let code = runtime.block_on(run(options, signals));
    // Dropping the runtime would wait for its thread that may still resolve the host name.
    runtime.shutdown_background();
    code
}

async fn run(options: ServeOptions, mut signals: StopSignals) -> io::Result<ExitCode> {
    let (level, format) = (options.log, options.log_format);
    let Some(app) = signals.unless_first(App::bind(options)).await.transpose()? else { return Ok(ExitCode::SUCCESS) };
    let _log = telemetry::start(level, format);
    telemetry::count_panics(app.metrics());
    signals.reload_with(app.reload());
    app.report();
    let is_whole = signals.drain_on_first(&app.drain(), app.run()).await == Some(Ok(()));
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

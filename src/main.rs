//! Reads the configuration, starts the logs, runs the app, and says how it ended.

use std::process::ExitCode;

use backend_signal::{
    admin,
    app::App,
    config::{Command, Config, Refused},
    drain, telemetry,
};

fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(Refused::Answered(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Refused::Wrong(reason)) => return refuse(&reason),
    };
    if let Some(Command::Healthcheck) = config.command {
        return if admin::is_healthy(config.port, config.tls_cert.is_some()) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(config)),
        Err(error) => refuse(&format!("cannot start: {error}")),
    }
}

async fn serve(config: Config) -> ExitCode {
    let wanted = format!("{}:{}", config.host, config.port);
    let (level, format) = (config.log, config.log_format);
    let (app, mut stop) = match App::bind(config).and_then(|app| Ok((app, drain::signals()?))) {
        Ok(bound) => bound,
        Err(error) => return refuse(&format!("cannot serve on {wanted}: {error}")),
    };
    let _log = telemetry::start(level, format);
    telemetry::watch_panics(app.metrics());
    tracing::info!("listening on {}", app.local_addr());
    let drain = app.drain();
    let mut running = std::pin::pin!(app.run());
    tokio::select! {
        () = &mut running => return ExitCode::SUCCESS,
        () = stop() => drain.start(),
    }
    tokio::select! {
        () = running => ExitCode::SUCCESS,
        () = stop() => ExitCode::FAILURE,
    }
}

fn refuse(reason: &str) -> ExitCode {
    eprintln!("backend-signal: {reason}");
    ExitCode::from(2)
}

//! Keeps a stream open: after a cut it opens the stream again, with longer and longer pauses.

use std::time::Duration;

use prost_types::Duration as ProtoDuration;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use super::{
    exit::{Exit, Failure},
    printer::Printer,
    server_options::{ServerOptions, Token},
};
use crate::grpc::proto::{End, EndReason};

/// Whether the stream has begun. Before the first time, a failure ends the command: the URL may be wrong.
#[derive(Debug, Default)]
pub(super) struct Begun {
    now: bool,
    ever: bool,
}

impl Begun {
    /// The server has sent the first response.
    pub(super) fn set(&mut self) {
        (self.now, self.ever) = (true, true);
    }
}

/// Runs a stream until it gives an exit code, or a failure that no new attempt can mend.
pub(super) async fn keep_open(
    printer: Printer,
    mut run: impl AsyncFnMut(&mut Begun) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    let (mut begun, mut pauses) = (Begun::default(), Pauses::default());
    loop {
        begun.now = false;
        let failure = match run(&mut begun).await {
            Err(failure) if failure.is_transient() && begun.ever => failure,
            ended => return ended,
        };
        if begun.now {
            pauses = Pauses::default();
        }
        let pause = pauses.next().max(failure.retry_after.unwrap_or_default());
        printer.lost(&failure, pause);
        tokio::time::sleep(pause).await;
    }
}

/// The next response of a stream. A failure if the stream ends or nothing comes for too long.
pub(super) async fn next<T>(responses: &mut (impl Stream<Item = Result<T, Status>> + Unpin)) -> Result<T, Failure> {
    match tokio::time::timeout(SILENCE, responses.next()).await {
        Ok(Some(response)) => Ok(response?),
        Ok(None) => Err(Failure::new(Exit::Unavailable, "the stream has ended")),
        Err(_) => Err(Failure::new(Exit::Unavailable, format!("nothing came for {} s", SILENCE.as_secs()))),
    }
}

/// What an `end` of the server means. `used` is the token with which the stream was opened.
pub(super) fn ended(end: End, used: Option<&Token>, options: &ServerOptions) -> Failure {
    match end.reason() {
        EndReason::Draining => Failure::new(Exit::Unavailable, "the daemon is stopping"),
        EndReason::Superseded => {
            Failure::new(Exit::Superseded, "superseded: a newer stream of the same device has taken over")
        }
        EndReason::Expired => match options.current_token() {
            Ok(fresh) if fresh.as_ref() != used => {
                Failure::new(Exit::Unavailable, "the token has expired, and its file has a new one")
            }
            _ => Failure::new(Exit::Refused, "the token has expired"),
        },
        EndReason::Unspecified => Failure::new(Exit::Unavailable, "the daemon has ended the stream"),
    }
}

/// The pauses between attempts: each is random, so that clients that were cut together do not come back together.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    doubled: u32,
}

impl Pauses {
    pub(super) fn next(&mut self) -> Duration {
        let longest = (SHORTEST * 2_u32.pow(self.doubled)).min(LONGEST);
        self.doubled = (self.doubled + 1).min(MOST_DOUBLED);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// The heartbeat that the commands ask for.
pub(super) const HEARTBEAT: ProtoDuration = ProtoDuration { seconds: 15, nanos: 0 };

/// Two heartbeats, and some time for a slow network.
const SILENCE: Duration = Duration::from_secs(35);

/// The longest first pause.
const SHORTEST: Duration = Duration::from_millis(500);

const LONGEST: Duration = Duration::from_secs(20);

/// Doubled so often, the first pause is longer than [`LONGEST`].
const MOST_DOUBLED: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn cut() -> Failure {
        Failure::new(Exit::Unavailable, "cut")
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_random() {
        let mut pauses = Pauses::default();
        let first = pauses.next();
        assert!(SHORTEST / 2 <= first && first <= SHORTEST, "{first:?}");
        let later: Vec<_> = (0..20).map(|_| pauses.next()).collect();
        assert!(later[10..].iter().all(|pause| LONGEST / 2 <= *pause && *pause <= LONGEST), "{later:?}");
        assert!(later[10..].windows(2).any(|pair| pair[0] != pair[1]), "{later:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_opened_again_only_after_it_has_begun_once() {
        let mut attempts = 0;
        let ended = keep_open(Printer::Text, async |_| {
            attempts += 1;
            Err(cut())
        });
        assert_eq!((ended.await, attempts), (Err(cut()), 1));
        let mut attempts = 0;
        let ended = keep_open(Printer::Text, async |begun| {
            attempts += 1;
            if attempts == 1 {
                begun.set();
            }
            if attempts < 5 { Err(cut()) } else { Ok(Exit::Done) }
        });
        assert_eq!((ended.await, attempts), (Ok(Exit::Done), 5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_ends_the_command_and_a_time_to_wait_is_kept() {
        let (mut attempts, began) = (0, tokio::time::Instant::now());
        let ended = keep_open(Printer::Text, async |begun| {
            begun.set();
            attempts += 1;
            let full = Failure { retry_after: Some(Duration::from_secs(60)), ..Failure::new(Exit::Full, "full") };
            Err(if attempts == 1 { full } else { Failure::new(Exit::Refused, "no") })
        });
        assert_eq!((ended.await, attempts), (Err(Failure::new(Exit::Refused, "no")), 2));
        assert!(began.elapsed() >= Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_counts_as_lost() {
        let silent = next(&mut tokio_stream::pending::<Result<(), Status>>()).await.unwrap_err();
        assert_eq!((silent.exit, silent.line.as_str()), (Exit::Unavailable, "nothing came for 35 s"));
        let over = next(&mut tokio_stream::empty::<Result<(), Status>>()).await.unwrap_err();
        assert_eq!(over.line, "the stream has ended");
    }
}

//! Counters of what is read again while the daemon runs, by outcome.

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::{Label, Metrics};

/// One such counter.
pub(super) type Reloads = Family<Label, Counter>;

/// Both outcomes are there from the start, because an alert does not see the first event of a counter that appears with it.
pub(super) fn reloads() -> Reloads {
    let reloads = Reloads::default();
    for outcome in [USED, REFUSED] {
        drop(reloads.get_or_create_owned(&[("outcome", outcome)]));
    }
    reloads
}

impl Metrics {
    /// The files of TLS were read again. `used`: new connections get what they say.
    pub fn certificates_reloaded(&self, used: bool) {
        count(&self.0.certificate_reloads, used);
    }

    /// The keys of tokens were read again. `used`: from now on they verify tokens.
    pub fn keys_refreshed(&self, used: bool) {
        count(&self.0.key_refreshes, used);
    }

    /// The secret of TURN was read again. `used`: from now on it signs credentials.
    pub fn turn_secret_reloaded(&self, used: bool) {
        count(&self.0.turn_secret_reloads, used);
    }
}

fn count(reloads: &Reloads, used: bool) {
    reloads.get_or_create_owned(&[("outcome", if used { USED } else { REFUSED })]).inc();
}

const USED: &str = "used";
const REFUSED: &str = "refused";

//! How many connections there is room for: what the system allows of descriptors, less a reserve.

use std::io;

/// How many connections may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MaxConnections {
    /// What the option says.
    wanted: Option<usize>,
    /// What the descriptors allow.
    most: usize,
}

impl MaxConnections {
    /// Raises the soft limit of descriptors to the hard one.
    pub(super) fn new(wanted: Option<usize>) -> io::Result<Self> {
        Ok(Self::of(rlimit::increase_nofile_limit(u64::MAX)?, wanted))
    }

    /// Keeps a share back, so that also with few descriptors most are places: for the log, the listener, connections that only
    /// learn that there is no place, and whatever a library opens.
    fn of(descriptors: u64, wanted: Option<usize>) -> Self {
        let most = descriptors - (descriptors / 4).min(RESERVE);
        Self { wanted, most: usize::try_from(most).unwrap_or(usize::MAX).max(1) }
    }

    pub(super) fn count(self) -> usize {
        self.wanted.unwrap_or(usize::MAX).min(self.most)
    }

    /// Says in a line that there are fewer than the operator may think; none where the option asks for few.
    pub(super) fn warn(self) {
        let most = self.most;
        match self.wanted {
            Some(wanted) if wanted > most => {
                tracing::warn!(
                    "--max-connections is {wanted}, but the limit of descriptors allows {most}: raise it (ulimit -n)"
                );
            }
            None if most < FEW => {
                tracing::warn!("only {most} connections may be open: raise the limit of descriptors (ulimit -n)");
            }
            _ => {}
        }
    }
}

/// Descriptors that are no connections', at most.
const RESERVE: u64 = 512;

/// With fewer places a limit was forgotten: the usual one of 1,024 descriptors, which nobody chose, leaves 768.
const FEW: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_descriptors_are_places_however_few_there_are() {
        for (descriptors, places) in
            [(1, 1), (4, 3), (256, 192), (512, 384), (1_024, 768), (2_048, 1_536), (20_000, 19_488)]
        {
            assert_eq!(MaxConnections::of(descriptors, None).count(), places, "{descriptors}");
            assert_eq!(MaxConnections::of(descriptors, Some(2)).count(), places.min(2), "{descriptors}");
            assert_eq!(MaxConnections::of(descriptors, Some(1 << 20)).count(), places, "{descriptors}");
        }
    }
}

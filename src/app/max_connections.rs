//! How many connections may be open: the limit of file descriptors minus a reserve, or less with `--max-connections`.

use std::io;

/// The limit of open connections, from the option and from the file descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MaxConnections {
    /// The value of `--max-connections`.
    option: Option<usize>,
    /// The number that the file descriptors allow.
    allowed: usize,
}

impl MaxConnections {
    /// Raises the soft limit of file descriptors to the hard limit, and derives the limit of connections.
    pub(super) fn new(option: Option<usize>) -> io::Result<Self> {
        Ok(Self::of(rlimit::increase_nofile_limit(u64::MAX)?, option))
    }

    /// Keeps a quarter of the descriptors in reserve, but never more than [`RESERVE`].
    fn of(descriptors: u64, option: Option<usize>) -> Self {
        let allowed = descriptors - (descriptors / 4).min(RESERVE);
        Self { option, allowed: usize::try_from(allowed).unwrap_or(usize::MAX).max(1) }
    }

    pub(super) fn count(self) -> usize {
        self.option.unwrap_or(usize::MAX).min(self.allowed)
    }

    /// The default limit for one address: a quarter, so that one attacker's address cannot take all connections.
    pub(super) fn of_address(self) -> usize {
        (self.count() / 4).max(1)
    }

    /// A warning when the descriptors allow fewer connections than the operator expects.
    pub(super) fn warning(self) -> Option<String> {
        let allowed = self.allowed;
        match self.option {
            Some(option) if option > allowed => Some(format!(
                "--max-connections is {option}, but the limit of file descriptors allows {allowed}; raise that limit (ulimit -n)"
            )),
            None if allowed < SUSPICIOUSLY_FEW => {
                Some(format!("only {allowed} connections may be open: raise the limit of file descriptors (ulimit -n)"))
            }
            _ => None,
        }
    }
}

/// Descriptors for everything else: log, listener, files of libraries, and the connections over the limit if there is room.
const RESERVE: u64 = 512;

/// Below this the operator probably forgot to raise the limit: the usual default of 1,024 descriptors leaves 768 connections.
const SUSPICIOUSLY_FEW: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_three_quarters_of_the_descriptors_are_for_connections() {
        for (descriptors, connections) in
            [(1, 1), (4, 3), (256, 192), (512, 384), (1_024, 768), (2_048, 1_536), (20_000, 19_488)]
        {
            assert_eq!(MaxConnections::of(descriptors, None).count(), connections, "{descriptors}");
            assert_eq!(MaxConnections::of(descriptors, Some(2)).count(), connections.min(2), "{descriptors}");
            assert_eq!(MaxConnections::of(descriptors, Some(1 << 20)).count(), connections, "{descriptors}");
        }
    }
}

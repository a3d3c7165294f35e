//! What a server says of itself (`INFO`), and whether it can be used.

use std::collections::HashMap;

/// The lines of `INFO`.
pub(super) struct ServerInfo(HashMap<String, String>);

impl ServerInfo {
    pub(super) fn read(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The id of the server's process.
    pub(super) fn run(&self) -> &str {
        self.get("run_id")
    }

    /// `Redis 7.0.15` or `Valkey 8.1.1`.
    pub(super) fn name(&self) -> String {
        match self.get("valkey_version") {
            "" => format!("Redis {}", self.get("redis_version")),
            version => format!("Valkey {version}"),
        }
    }

    pub(super) fn is_primary(&self) -> bool {
        self.get("role") == "master"
    }

    /// Why the server cannot be used.
    pub(super) fn unfit(&self) -> Option<String> {
        if self.run().is_empty() {
            return Some("its INFO has no run_id, so a restart could not be noticed".to_owned());
        }
        if version(self.get("redis_version")) < OLDEST {
            // Before, scripts wrote without enough replicas.
            return Some(format!("{} is too old: it must be 6.2.7 or newer", self.name()));
        }
        if self.get("cluster_enabled") == "1" {
            return Some(
                "it is a node of a Redis Cluster: one primary is needed, with replicas if you like".to_owned(),
            );
        }
        if !self.is_primary() {
            return Some(format!("it is a replica of {}, and not the primary", self.get("master_host")));
        }
        match self.get("maxmemory_policy") {
            "noeviction" | "" => None,
            policy => Some(format!(
                "maxmemory-policy is {policy}, and it must be noeviction: an entry that is evicted is a device that is not found"
            )),
        }
    }

    /// How many replicas it has.
    pub(super) fn replicas(&self) -> usize {
        self.get("connected_slaves").parse().unwrap_or(0)
    }

    /// Whether it refuses writes while too few replicas are connected.
    pub(super) fn needs_replicas(&self) -> bool {
        // The line is only there with `min-replicas-to-write`.
        self.0.contains_key("min_slaves_good_slaves")
    }
}

/// The first three numbers of a version.
fn version(text: &str) -> [u32; 3] {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(0));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}

const OLDEST: [u32; 3] = [6, 2, 7];

#[cfg(test)]
mod tests {
    use super::*;

    fn with(changes: &[(&str, &str)]) -> ServerInfo {
        let mut info = ServerInfo::read(
            "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\nrole:master\r\ncluster_enabled:0\r\nmaxmemory_policy:noeviction\r\n",
        );
        info.0.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        info
    }

    #[test]
    fn a_server_that_cannot_be_used_is_refused_in_one_clear_line() {
        assert_eq!(with(&[]).unfit(), None);
        for (name, value, reason) in [
            ("run_id", "", "run_id"),
            ("redis_version", "6.2.6", "Redis 6.2.6 is too old: it must be 6.2.7 or newer"),
            ("redis_version", "5.0.14", "too old"),
            ("redis_version", "", "too old"),
            ("cluster_enabled", "1", "Cluster"),
            ("role", "slave", "replica"),
            ("maxmemory_policy", "allkeys-lru", "maxmemory-policy is allkeys-lru"),
        ] {
            let refusal = with(&[(name, value)]).unfit().unwrap_or_else(|| panic!("{name} {value}"));
            assert!(refusal.contains(reason) && !refusal.contains('\n'), "{refusal}");
        }
        for fit in ["6.2.7", "6.10.0", "7.0.0", "8.0.2", "10.0"] {
            assert_eq!(with(&[("redis_version", fit)]).unfit(), None, "{fit}");
        }
    }

    #[test]
    fn valkey_is_called_by_its_name() {
        assert_eq!(with(&[]).name(), "Redis 7.0.15");
        assert_eq!(with(&[("redis_version", "7.2.4"), ("valkey_version", "8.1.1")]).name(), "Valkey 8.1.1");
    }
}

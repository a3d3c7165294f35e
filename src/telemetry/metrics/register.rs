//! Puts a metric into a registry, and keeps a handle to it.

use prometheus_client::registry::{Metric, Registry};

pub(super) trait Register {
    /// Registers a metric. Returns a handle to it.
    fn add<M: Metric + Clone>(&mut self, name: &'static str, help: &'static str, metric: M) -> M;

    /// Registers a metric at zero. Returns a handle to it.
    fn zero<M: Metric + Clone + Default>(&mut self, name: &'static str, help: &'static str) -> M {
        self.add(name, help, M::default())
    }
}

impl Register for Registry {
    fn add<M: Metric + Clone>(&mut self, name: &'static str, help: &'static str, metric: M) -> M {
        self.register(name, help, metric.clone());
        metric
    }
}

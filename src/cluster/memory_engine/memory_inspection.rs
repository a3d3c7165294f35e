//! What a test reads in the directory of the primary.

use super::{memory_network::MemoryServer, memory_tables::Script};
use crate::{
    auth::TenantAddress,
    cluster::directory::{Entry, NodeId},
};

impl MemoryServer {
    /// What the primary says of a device.
    pub(crate) fn entry(&self, address: &TenantAddress) -> Option<Entry> {
        self.read(|script| script.entry(address))
    }

    /// Whether nobody owes to the primary.
    pub(crate) fn is_sure(&self) -> bool {
        self.read(|script| script.is_sure())
    }

    fn read<T: Default>(&self, read: impl FnOnce(&mut Script<'_>) -> T) -> T {
        let mut network = self.0.lock();
        let primary = network.primary;
        network.script(primary, NodeId(0)).map(|mut script| read(&mut script)).unwrap_or_default()
    }
}

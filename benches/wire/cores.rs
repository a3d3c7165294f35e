//! Who runs where: the load on the last processor that this process may use, the servers on all the others.
//!
//! Left to the scheduler, a server that is woken waits for the load to be put aside, or the load for it, for milliseconds; that
//! would be most of what is measured.

use std::{
    io,
    process::{Child, Command},
    sync::OnceLock,
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Starts a server, and puts the calling thread, which makes the load, out of its way.
pub fn start(server: &mut Command) -> io::Result<Child> {
    static ALL: OnceLock<CpuSet> = OnceLock::new();
    // Before the first server is started, the load has no place of its own.
    let all = ALL.get_or_init(|| sched_getaffinity(None).unwrap_or_default());
    let (load, servers) = split(all);
    sched_setaffinity(None, &servers)?;
    // A process is born where its parent is.
    let started = server.spawn();
    sched_setaffinity(None, &load)?;
    started
}

/// The same processor for both when there is only one.
fn split(all: &CpuSet) -> (CpuSet, CpuSet) {
    let (mut load, mut servers) = (CpuSet::new(), *all);
    if let Some(last) = (0..CpuSet::MAX_CPU).rev().find(|&cpu| all.is_set(cpu)) {
        load.set(last);
        servers.unset(last);
    }
    (load, if servers.count() == 0 { *all } else { servers })
}

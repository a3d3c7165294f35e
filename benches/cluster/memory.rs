//! What an idle stream takes: without Redis, with it, and at a daemon that knows nothing of it.

use std::{io, time::Duration};

use crate::{
    Rows, Wishes, crowd,
    scene::{Scene, daemon, runtime},
    servers::Running,
};

/// Long enough for the last tasks of the opening to be gone.
const SETTLE: Duration = Duration::from_secs(2);

pub fn memory(wishes: &Wishes, rows: &mut Rows) -> io::Result<()> {
    let scene = Scene::start(wishes, 1)?;
    let empty = scene.redis.memory()?;
    let with = per_stream(&scene.nodes[0], wishes.streams)?;
    let redis = each(empty, scene.redis.memory()?, wishes.streams)?;
    drop(scene);
    let without = per_stream(&daemon(wishes, &[])?, wishes.streams)?;
    let old = match &wishes.old {
        Some(program) => {
            let old = Wishes { daemon: program.clone(), old: None, ..*wishes };
            let old = per_stream(&daemon(&old, &[])?, wishes.streams)?;
            format!("{without} bytes, {:+} of {old} before", without - old)
        }
        None => format!("{without} bytes (without --old nothing to compare with)"),
    };
    rows.add("without --redis: an idle stream", "<= 16 bytes more", "", old);
    let more = format!("{:+} bytes ({with} and not {without}), and {redis} in Redis", with - without);
    rows.add("with it: an idle stream, on its node", "<= 96 bytes more", "48", more);
    Ok(())
}

/// Bytes of PSS for each idle stream.
fn per_stream(server: &Running, streams: u32) -> io::Result<i64> {
    let empty = server.memory()?;
    runtime()?.block_on(async {
        crowd::open(server.address, 0..streams).await?;
        tokio::time::sleep(SETTLE).await;
        each(empty, server.memory()?, streams)
    })
}

fn each(before: u64, after: u64, streams: u32) -> io::Result<i64> {
    let more = i64::try_from(after).map_err(io::Error::other)? - i64::try_from(before).map_err(io::Error::other)?;
    Ok(more / i64::from(streams))
}

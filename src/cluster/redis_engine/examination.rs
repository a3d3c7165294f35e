//! What an operator sees of the server without a node: whether it can be used, what should be set, and the directory.

use redis::Cmd;

use super::{
    commands::Commands,
    key_names::read_node,
    lua::{Loaded, Script},
    redis_server::{OpenFault, RedisServer, alongside},
    replies::read_member,
    server_info::ServerInfo,
};
use crate::cluster::{
    directory::{DEAD_MS, Fault, NodeId},
    lost::Lost,
    survey::{Examined, Survey},
    wire::Channel,
};

impl RedisServer {
    /// Connects, and finds out whether a node could work with this server and what an operator should look into.
    pub async fn examine(&self) -> Examined {
        let examined = self.visit(async |commands| {
            let (info, scripts) = self.prepare(commands).await?;
            self.try_commands(commands, &scripts).await.map_err(|fault| self.fault(&fault))?;
            Ok(Examined::Fit { server: info.name(), warnings: self.warnings(&info).await })
        });
        match examined.await {
            Ok(fit) => fit,
            Err(OpenFault::Unfit(why)) => Examined::Unfit(why),
            Err(OpenFault::Unreachable(why)) => Examined::Unreachable(why),
        }
    }

    /// Reads the directory.
    ///
    /// # Errors
    /// When the server cannot be reached or used. The line says why.
    pub async fn survey(&self) -> Result<Survey, String> {
        let survey = self.visit(async |commands| {
            self.prepare(commands).await?;
            self.read_directory(commands).await.map_err(|fault| self.fault(&fault))
        });
        survey.await.map_err(OpenFault::into_reason)
    }

    /// Opens a connection for some commands.
    async fn visit<T>(&self, work: impl AsyncFnOnce(&Commands) -> Result<T, OpenFault>) -> Result<T, OpenFault> {
        let (commands, task) = Box::pin(self.open(|_| Ok(()))).await?.commands(Lost::default());
        Box::pin(alongside(task, work(&commands))).await
    }

    /// Tries each command that a node will need: a missing right would break every link, and only when it is used.
    async fn try_commands(&self, commands: &Commands, scripts: &Loaded) -> Result<(), Fault> {
        let nobody = NodeId(0);
        let channel = self.prefix.channel(&Channel::Requests(nobody));
        commands.subscribe(std::slice::from_ref(&channel)).await?;
        commands.unsubscribe(std::slice::from_ref(&channel)).await?;
        let mut script = scripts.call(Script::Find);
        script.arg(4).arg(self.prefix.directory()).arg(self.prefix.members()).arg(self.prefix.debts());
        script.arg(self.prefix.debts()).arg("no generation").arg("").arg("").arg("").arg("");
        let mut ticket = redis::cmd("SET");
        ticket.arg(self.prefix.ticket(b"")).arg("").arg("NX").arg("PX").arg(1);
        let hash = self.prefix.probe();
        for command in [
            command("TIME", &[]),
            // The commands of the scripts. A script would name itself, and not the command that it may not use.
            command("HSET", &[&hash, "nobody", ""]),
            command("EXPIRE", &[&hash, "1"]),
            command("HGET", &[&hash, "nobody"]),
            command("HGETALL", &[&hash]),
            command("HLEN", &[&hash]),
            command("HDEL", &[&hash, "nobody"]),
            command("PUBLISH", &[&channel, ""]),
            ticket,
            script,
        ] {
            commands.call(&command).await?;
        }
        Ok(())
    }

    async fn read_directory(&self, commands: &Commands) -> Result<Survey, Fault> {
        let generation = command("HGET", &[&self.prefix.directory(), "gen"]);
        let (members, debts) =
            (command("HGETALL", &[&self.prefix.members()]), command("HGETALL", &[&self.prefix.debts()]));
        let time = redis::cmd("TIME");
        let (generation, members, debts, time) = tokio::try_join!(
            commands.call(&generation),
            commands.call(&members),
            commands.call(&debts),
            commands.call(&time)
        )?;
        let read = || {
            let generation = redis::from_redis_value::<Option<u64>>(generation).ok()?.unwrap_or(0);
            let (seconds, micros) = redis::from_redis_value::<(u64, u64)>(time).ok()?;
            let time_ms = seconds * 1_000 + micros / 1_000;
            let rows = redis::from_redis_value::<Vec<(String, String)>>(members).ok()?;
            let mut members =
                rows.iter().map(|(node, row)| read_member(node, row, time_ms)).collect::<Option<Vec<_>>>()?;
            members.sort_by_key(|member| member.node);
            let mut debtors = Vec::new();
            for (node, debt) in redis::from_redis_value::<Vec<(String, String)>>(debts).ok()? {
                let (node, since_ms) = (read_node(&node)?, debt.rsplit(' ').next()?.parse::<u64>().ok()?);
                let is_here = members.iter().any(|member| member.node == node && !member.is_dead());
                if is_here || time_ms.saturating_sub(since_ms) < DEAD_MS {
                    debtors.push(node);
                }
            }
            debtors.sort();
            Some(Survey { generation, members, debtors })
        };
        read().ok_or_else(|| commands.not_understood())
    }

    /// What an operator should look into.
    async fn warnings(&self, info: &ServerInfo) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |text: &str| warnings.push(text.to_owned());
        if self.tls.is_none() && !self.url.is_local() {
            warn(
                "without TLS to another host: whoever can read or change that traffic reads messages and sends as anybody",
            );
        }
        if info.replicas() > 0 && !info.needs_replicas() {
            warn("it has replicas, and not min-replicas-to-write 1: a primary that is cut off loses what it accepts");
        }
        if info.replicas() == 1 && info.needs_replicas() {
            warn("it has one replica: when that one is promoted, it has none and refuses all writes; use two");
        }
        let settings = self.settings().await;
        let setting = |name: &str| settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        if setting("save") == Some("") && setting("appendonly") == Some("no") {
            warn(
                "no persistence (save, appendonly): after a restart sends to other nodes can be 503 until these have told what they hold",
            );
        }
        if info.needs_replicas()
            && let Some(lag) = setting("min-replicas-max-lag").and_then(|lag| lag.parse::<u32>().ok())
            && (lag == 0 || lag > 2)
        {
            warn(&format!(
                "min-replicas-max-lag is {lag}, and should be 2: a primary that is cut off accepts writes for as long"
            ));
        }
        if let Some(bytes) = setting("client-output-buffer-limit").and_then(pubsub_limit)
            && bytes < PUBSUB_BYTES
        {
            warn(
                "client-output-buffer-limit should have `pubsub 256mb 64mb 60`: with less, a burst cuts the link of a healthy node",
            );
        }
        warnings
    }

    /// The settings of the server, if it may be asked for them. On a connection of its own, which a refusal may break.
    async fn settings(&self) -> Vec<(String, String)> {
        let mut settings = Vec::new();
        for name in ["save", "appendonly", "min-replicas-max-lag", "client-output-buffer-limit"] {
            let asked = self.visit(async |commands| {
                commands.call(&command("CONFIG", &["GET", name])).await.map_err(|fault| self.fault(&fault))
            });
            let Ok(value) = asked.await else { return Vec::new() };
            settings.extend(redis::from_redis_value::<Vec<(String, String)>>(value).unwrap_or_default());
        }
        settings
    }
}

fn command(name: &str, arguments: &[&str]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(arguments);
    command
}

/// The hard limit in `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60`. `None`: there is no limit.
fn pubsub_limit(value: &str) -> Option<u64> {
    let mut words = value.split_whitespace().skip_while(|word| *word != "pubsub");
    words.nth(1)?.parse().ok().filter(|bytes| *bytes > 0)
}

/// What a node may have to take at once: 24 MiB of requests, 24 MiB of parcels, and room for answers and presence.
const PUBSUB_BYTES: u64 = 256 << 20;

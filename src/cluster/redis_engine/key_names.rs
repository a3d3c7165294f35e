//! The names of keys and channels: all begin with the prefix of the cluster.

use std::{fmt, str::FromStr};

use crate::{
    auth::TenantUser,
    cluster::{directory::NodeId, wire::Channel},
};

/// What the names of all keys and channels begin with: 1 to 32 of `[A-Za-z0-9_-]`.
///
/// Keys are of a database, channels are of all of them. Only the channels of users need its number: those of nodes have a random id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisPrefix {
    text: String,
    /// What the names of the channels of users begin with.
    users: String,
}

/// A text that is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedisPrefixFault;

impl FromStr for RedisPrefix {
    type Err = RedisPrefixFault;

    fn from_str(text: &str) -> Result<Self, RedisPrefixFault> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let is_prefix = (1..=32).contains(&text.len()) && text.chars().all(fits);
        if is_prefix { Ok(Self::new(text)) } else { Err(RedisPrefixFault) }
    }
}

impl Default for RedisPrefix {
    fn default() -> Self {
        Self::new("bs")
    }
}

impl RedisPrefix {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), users: format!("{text}:w:") }
    }

    /// The same for a database of this number.
    pub(super) fn in_database(self, number: u16) -> Self {
        let users = if number == 0 { self.users } else { format!("{}:{number}:w:", self.text) };
        Self { users, ..self }
    }

    /// The generation of the directory.
    pub(super) fn directory(&self) -> String {
        self.name("g", "")
    }

    /// The nodes.
    pub(super) fn members(&self) -> String {
        self.name("m", "")
    }

    /// The debts.
    pub(super) fn debts(&self) -> String {
        self.name("o", "")
    }

    /// A hash without a meaning, to try the commands on.
    pub(super) fn probe(&self) -> String {
        self.name("x", "")
    }

    /// The devices of a user.
    pub(super) fn devices(&self, user: &TenantUser) -> String {
        self.name("d:", user.as_text())
    }

    /// A used ticket.
    pub(super) fn ticket(&self, hash: &[u8]) -> Vec<u8> {
        [self.text.as_bytes(), b":t:", hash].concat()
    }

    /// What the names of the channels of requests begin with. As long as the beginning of [`RedisPrefix::devices`].
    pub(super) fn requests(&self) -> String {
        self.name("i:", "")
    }

    pub(super) fn channel(&self, channel: &Channel) -> String {
        match channel {
            Channel::Requests(node) => self.name("i:", &node.to_string()),
            Channel::Answers(node) => self.name("r:", &node.to_string()),
            Channel::Presence(user) => [&self.users, user.as_text()].concat(),
        }
    }

    /// The channel of this name. `None`: it is none of ours.
    pub(super) fn read_channel(&self, name: &[u8]) -> Option<Channel> {
        let name = std::str::from_utf8(name).ok()?;
        if let Some(user) = name.strip_prefix(&self.users) {
            return TenantUser::from_node(user).ok().map(Channel::Presence);
        }
        let name = name.strip_prefix(&self.text)?;
        let requests = name.strip_prefix(":i:").and_then(read_node).map(Channel::Requests);
        requests.or_else(|| name.strip_prefix(":r:").and_then(read_node).map(Channel::Answers))
    }

    fn name(&self, kind: &str, rest: &str) -> String {
        [&self.text, ":", kind, rest].concat()
    }
}

/// Reads the text of a [`NodeId`].
pub(super) fn read_node(text: &str) -> Option<NodeId> {
    u64::from_str_radix(text, 16).ok().map(NodeId)
}

impl fmt::Display for RedisPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for RedisPrefixFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it must have 1 to 32 of the characters A-Z a-z 0-9 _ -")
    }
}

impl std::error::Error for RedisPrefixFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_1_to_32_harmless_characters() {
        let longest = "aZ09_-".repeat(6)[..32].to_owned();
        for prefix in ["bs", "x", &longest] {
            assert_eq!(prefix.parse().map(|prefix: RedisPrefix| prefix.to_string()).as_deref(), Ok(prefix));
        }
        for text in ["", &format!("{longest}x"), "a:b", "a*", "a b", "ä"] {
            assert_eq!(text.parse::<RedisPrefix>(), Err(RedisPrefixFault), "{text}");
        }
    }

    #[test]
    fn the_name_of_a_channel_is_read_back() {
        let prefix = RedisPrefix::default();
        let user = |text: &str| TenantUser::from_node(text).unwrap();
        let (low, high) = (NodeId(7), NodeId(u64::MAX));
        for channel in [
            Channel::Requests(low),
            Channel::Answers(high),
            Channel::Presence(user("a:b *")),
            Channel::Presence(user("tenant\0user")),
        ] {
            assert_eq!(prefix.read_channel(prefix.channel(&channel).as_bytes()), Some(channel));
        }
        for other in [&b"bs:i:x"[..], b"bs:w:", b"bs:x:1", b"bsx:i:1", b"bs", b"", b"bs:w:\xff"] {
            assert_eq!(prefix.read_channel(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_channel_of_a_user_is_of_one_database() {
        let [first, second] = [0, 1].map(|number| RedisPrefix::default().in_database(number));
        let channel = Channel::Presence(TenantUser::from_node("bob").unwrap());
        let name = second.channel(&channel);
        assert_eq!((first.channel(&channel).as_str(), name.as_str()), ("bs:w:bob", "bs:1:w:bob"));
        assert_eq!((first.read_channel(name.as_bytes()), second.read_channel(name.as_bytes())), (None, Some(channel)));
    }
}

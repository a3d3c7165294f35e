//! The users that one watch covers.

use std::collections::BTreeSet;

use crate::{error::Invalid, model::UserId};

/// 1 to 64 users, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSet(BTreeSet<UserId>);

impl UserSet {
    /// One user.
    #[must_use]
    pub fn one(user: UserId) -> Self {
        Self(BTreeSet::from([user]))
    }

    /// All users of a request. A user that is named twice counts once.
    ///
    /// # Errors
    /// [`Invalid::Users`] when there is no user, or more than 64; the first error of an id.
    pub fn new(users: impl IntoIterator<Item = Result<UserId, Invalid>>) -> Result<Self, Invalid> {
        let mut set = BTreeSet::new();
        for user in users {
            set.insert(user?);
            if set.len() > MOST {
                return Err(Invalid::Users);
            }
        }
        if set.is_empty() { Err(Invalid::Users) } else { Ok(Self(set)) }
    }

    /// The users, sorted by their bytes.
    pub fn iter(&self) -> impl Iterator<Item = &UserId> {
        self.0.iter()
    }
}

/// The most users. A watch polls the boards of all its users each time that one of them changes.
const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(users: impl Iterator<Item = u32>) -> Result<UserSet, Invalid> {
        UserSet::new(users.map(|user| UserId::new(&user.to_string())))
    }

    #[test]
    fn a_set_has_1_to_64_users_each_once() {
        assert_eq!(numbered(0..0), Err(Invalid::Users));
        assert_eq!(numbered(0..64).map(|set| set.iter().count()), Ok(64));
        assert_eq!(numbered((0..64).chain(0..64)).map(|set| set.iter().count()), Ok(64));
        assert_eq!(numbered(0..65), Err(Invalid::Users));
        assert_eq!(UserSet::new([UserId::new("bob"), UserId::new("..")]), Err(Invalid::User));
    }
}

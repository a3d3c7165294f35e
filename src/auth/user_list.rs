//! The users that a claim lists.

use std::sync::Arc;

use memchr::memmem;

use crate::model::UserId;

/// A set of users in one text. A token of 8 KiB can list thousands of users, and a hash set of them would take 20 times as
/// much memory while a call of the caller lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserList(Arc<str>);

/// Stands before and after each id. No id has a control character.
const SEPARATOR: char = '\0';

impl UserList {
    /// Whether a user is in the list.
    #[must_use]
    pub fn contains(&self, user: &UserId) -> bool {
        let id = user.as_str().as_bytes();
        // An id has at most 256 bytes.
        let mut wanted = [0; 2 + 256];
        let Some(place) = wanted.get_mut(1..=id.len()) else { return false };
        place.copy_from_slice(id);
        memmem::find(self.0.as_bytes(), &wanted[..id.len() + 2]).is_some()
    }
}

impl FromIterator<UserId> for UserList {
    fn from_iter<I: IntoIterator<Item = UserId>>(users: I) -> Self {
        let mut text = String::new();
        for user in users {
            if text.is_empty() {
                text.push(SEPARATOR);
            }
            text.push_str(user.as_str());
            text.push(SEPARATOR);
        }
        Self(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::new(id).unwrap()
    }

    #[test]
    fn a_list_contains_exactly_the_users_it_was_made_of() {
        let longest = "x".repeat(256);
        let list: UserList = [user("bob"), user("ana maria"), user("bob"), user(&longest)].into_iter().collect();
        for listed in ["bob", "ana maria", &longest] {
            assert!(list.contains(&user(listed)), "{listed}");
            assert!(!UserList::default().contains(&user(listed)), "{listed}");
        }
        for other in ["bo", "ob", "ana", "maria", "bob ana maria", "Bob", &longest[1..]] {
            assert!(!list.contains(&user(other)), "{other}");
        }
    }
}

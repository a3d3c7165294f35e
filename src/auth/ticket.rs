//! Tickets: a ticket opens one event stream within 30 s. So no long-lived token has to stand in a URL.
//!
//! A ticket is itself a JWT, with another key and other claims than a token. A node accepts each ticket once, also when its wall
//! clock is set back.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation, dangerous::insecure_decode_claims,
    decode, encode,
};
use parking_lot::Mutex;
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{sync::oneshot, time::Instant};

use super::{
    jwt::{MAX_LENGTH, Verified, time},
    signatures,
    used_tickets::{TicketId, Used, UsedTickets},
};
use crate::{
    error::{Error, IdentityFault},
    wall_clock,
};

/// Issues tickets, and remembers which ones were used.
pub struct Tickets {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
    /// Tells the tickets of this process from those of other nodes with the same key.
    issuer: u64,
    /// When the process began to issue tickets, by a clock that nobody sets.
    began: Instant,
    used: Mutex<Used>,
    /// What remembers used tickets for all nodes, if there are others.
    everywhere: OnceLock<Arc<dyn UsedTickets>>,
}

/// What a ticket says.
#[derive(Serialize, Deserialize)]
struct Contents {
    id: TicketId,
    /// Who issued it, and when: milliseconds by the clock of the issuer that nobody sets.
    issued: (u64, u64),
    /// When the token expires, in seconds since 1970.
    expires: f64,
    /// The claims of the token that say who the caller is and what it may do.
    claims: Box<RawValue>,
}

/// A new ticket. Without `Debug`, so that no log can show it.
#[derive(Serialize)]
pub struct Issued {
    ticket: String,
    expires_in: u64,
}

/// The ticket of a request that may open a stream.
#[derive(Clone, Debug)]
pub(super) struct Unused {
    tickets: Arc<Tickets>,
    id: TicketId,
    is_own: bool,
}

/// Keeps other requests from using the same ticket. Dropped without [`Reservation::use_up`], it frees the ticket.
#[derive(Debug)]
pub struct Reservation(Option<Unused>);

impl Tickets {
    /// `key` is the same on all nodes that accept each other's tickets. `None`: a random one, so only this process does.
    ///
    /// # Errors
    /// When the key is too short, or the system gives no random bytes.
    pub fn new(key: Option<&[u8]>) -> Result<Self, &'static str> {
        signatures::install();
        let mut random = [0; SHORTEST_KEY];
        SystemRandom::new().fill(&mut random).map_err(|_| "the system gives no random bytes")?;
        let key = key.unwrap_or(&random);
        if key.len() < SHORTEST_KEY {
            return Err("the key of tickets has less than 32 bytes, so whoever has a ticket could guess it");
        }
        // Not the key itself: if it is also the secret of tokens, a token must not pass as a ticket, nor a ticket as a token.
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"backend-signal ticket");
        let mut validation = Validation::new_for_family(AlgorithmFamily::Hmac);
        validation.algorithms = vec![Algorithm::HS256];
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        let unusable = "the key of tickets cannot be used";
        Ok(Self {
            signing: EncodingKey::from_secret(key.as_ref()).map_err(|_| unusable)?,
            verifying: DecodingKey::from_secret(key.as_ref()).map_err(|_| unusable)?,
            validation,
            issuer: fastrand::u64(..),
            began: Instant::now(),
            used: Mutex::default(),
            everywhere: OnceLock::new(),
        })
    }

    /// From now on a ticket can be used on one of all nodes only.
    pub fn share_with(&self, nodes: Arc<dyn UsedTickets>) {
        // Fails in a second call: there is one set of other nodes.
        let _ = self.everywhere.set(nodes);
    }

    /// Issues a ticket for a token. The ticket gets only the claims that the daemon reads.
    pub(super) fn issue(&self, token: &Verified, is_read: impl Fn(&str) -> bool) -> Result<Issued, Error> {
        let (now, mut claims) = (wall_clock::now(), members(&token.claims)?);
        claims.retain(|name, _| is_read(name));
        let until = (now + LIFETIME).min(token.expires);
        let contents = Contents {
            id: (millis(since_1970(until)), fastrand::u64(..)),
            issued: (self.issuer, millis(self.began.elapsed())),
            expires: since_1970(token.expires).as_secs_f64(),
            claims: serde_json::value::to_raw_value(&claims).map_err(|_| Error::Internal)?,
        };
        let ticket = encode(&Header::new(Algorithm::HS256), &contents, &self.signing).map_err(|_| Error::Internal)?;
        Ok(Issued { ticket, expires_in: until.duration_since(now).unwrap_or_default().as_secs() })
    }

    /// Verifies a ticket. Gives the claims of its token, and a handle that can use the ticket up.
    pub(super) fn verify(self: &Arc<Self>, ticket: &[u8]) -> Result<(Verified, Unused), IdentityFault> {
        if ticket.len() > MAX_LENGTH + OWN_LENGTH {
            return Err(IdentityFault::InvalidToken);
        }
        // Before the signature: a browser that reconnects sends its old ticket, perhaps of a process with another key.
        let is_old = insecure_decode_claims::<Contents>(ticket).is_ok_and(|contents| is_old(contents.id));
        if is_old {
            return Err(IdentityFault::SpentTicket);
        }
        let contents = decode::<Contents>(ticket, &self.verifying, &self.validation);
        let Contents { id, issued: (issuer, at), expires, claims } =
            contents.map_err(|_| IdentityFault::InvalidToken)?.claims;
        let expires = time(expires);
        // No leeway: a ticket opens a stream, which would end at once.
        if wall_clock::now() >= expires {
            return Err(IdentityFault::ExpiredToken);
        }
        let is_own = issuer == self.issuer;
        let is_forgotten = |used: &Used| {
            if is_own {
                self.began.elapsed() > Duration::from_millis(at) + LIFETIME
            } else {
                used.may_have_forgotten(id)
            }
        };
        let used = self.used.lock();
        if used.has(id) || is_forgotten(&used) {
            return Err(IdentityFault::SpentTicket);
        }
        drop(used);
        Ok((Verified { claims, expires }, Unused { tickets: self.clone(), id, is_own }))
    }
}

impl Reservation {
    /// Reserves the ticket of a caller, if it has one: first among the requests of this node, then among all nodes. While these
    /// cannot be asked, a ticket can be used once on each node.
    pub(super) async fn of(ticket: Option<&Unused>) -> Result<Self, Error> {
        let Some(Unused { tickets, id, is_own }) = ticket else { return Ok(Self(None)) };
        let is_known = tickets.used.lock().reserve(*id, *is_own, since_1970(wall_clock::now()))?;
        let reservation = Self(ticket.cloned());
        let Some(nodes) = tickets.everywhere.get().filter(|_| !is_known) else { return Ok(reservation) };
        let (sender, reserved) = oneshot::channel();
        let (tickets, others, id) = (tickets.clone(), nodes.clone(), *id);
        // The client may leave while the other nodes mark the ticket as used. This node has to learn that the mark is its own, or its
        // client could not come back with the ticket.
        nodes.spawn(Box::pin(async move {
            let name = format!("{:016x}{:016x}", id.0, id.1);
            let reserved = match others.use_once(name.as_bytes()).await {
                Some(true) => {
                    tickets.used.lock().is_ours(id);
                    Ok(reservation)
                }
                Some(false) => {
                    reservation.use_up();
                    Err(IdentityFault::SpentTicket.into())
                }
                None => Ok(reservation),
            };
            // Fails when the client has left. That frees the ticket.
            drop(sender.send(reserved));
        }));
        // No answer: the process ends.
        reserved.await.unwrap_or(Err(Error::DRAINING))
    }

    /// The stream was opened.
    pub fn use_up(mut self) {
        self.0 = None;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(Unused { tickets, id, .. }) = &self.0 {
            tickets.used.lock().free(*id);
        }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

fn members(claims: &RawValue) -> Result<BTreeMap<String, &RawValue>, Error> {
    serde_json::from_str(claims.get()).map_err(|_| IdentityFault::InvalidToken.into())
}

fn is_old((until, _): TicketId) -> bool {
    Duration::from_millis(until) < since_1970(wall_clock::now())
}

pub(super) fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

pub(super) fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

/// How long a ticket can be used.
pub(super) const LIFETIME: Duration = Duration::from_secs(30);

/// The most bytes of a ticket besides the claims of its token.
const OWN_LENGTH: usize = 1024;

/// The output of SHA-256.
const SHORTEST_KEY: usize = 32;

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::atomic::{AtomicBool, Ordering},
    };

    use tokio::{sync::Notify, task::yield_now, time::timeout};

    use super::*;

    fn token(seconds: u64) -> Verified {
        let claims = r#"{"sub":"bob","contacts":["ana"],"secret":"x","exp":1}"#;
        let claims = RawValue::from_string(claims.to_owned()).unwrap();
        Verified { claims, expires: wall_clock::now() + Duration::from_secs(seconds) }
    }

    fn issue(tickets: &Tickets, seconds: u64) -> String {
        tickets.issue(&token(seconds), |claim| ["sub", "contacts"].contains(&claim)).unwrap().ticket
    }

    #[test]
    fn a_ticket_has_the_claims_that_are_read_and_no_others() {
        let tickets = Arc::new(Tickets::new(None).unwrap());
        let (verified, _) = tickets.verify(issue(&tickets, 60).as_bytes()).unwrap();
        assert_eq!(verified.claims.get(), r#"{"contacts":["ana"],"sub":"bob"}"#);
        let left = verified.expires.duration_since(wall_clock::now()).unwrap();
        assert!((55..=60).contains(&left.as_secs()), "{left:?}");
    }

    #[test]
    fn a_ticket_lives_for_30_s_but_never_longer_than_its_token() {
        let tickets = Tickets::new(None).unwrap();
        let lives = |seconds| tickets.issue(&token(seconds), |_| false).unwrap().expires_in;
        assert_eq!((lives(600), lives(31)), (30, 30));
        for seconds in [0, 1, 2, 20, 29] {
            assert!(lives(seconds) <= seconds, "{} of {seconds} s", lives(seconds));
        }
    }

    #[tokio::test]
    async fn a_reservation_that_is_dropped_gives_the_ticket_back_and_one_that_is_used_up_does_not() {
        let tickets = Arc::new(Tickets::new(None).unwrap());
        let ticket = issue(&tickets, 60);
        let verify = || tickets.verify(ticket.as_bytes()).map(|(_, unused)| unused);
        let (first, second) = (verify().unwrap(), verify().unwrap());
        let spent = Error::from(IdentityFault::SpentTicket);
        let reservation = Reservation::of(Some(&first)).await.unwrap();
        assert_eq!(Reservation::of(Some(&second)).await.err(), Some(spent));
        drop(reservation);
        Reservation::of(Some(&second)).await.unwrap().use_up();
        assert_eq!(Reservation::of(Some(&first)).await.err(), Some(spent));
        assert_eq!(verify().err(), Some(IdentityFault::SpentTicket));
        Reservation::of(None).await.unwrap().use_up();
    }

    #[tokio::test(start_paused = true)]
    async fn a_used_ticket_that_was_forgotten_is_not_good_again_when_the_wall_clock_is_set_back() {
        let [own, other] = [(); 2].map(|()| Arc::new(Tickets::new(Some(&[7; 32])).unwrap()));
        let tickets = [issue(&own, 60), issue(&other, 60)];
        for ticket in &tickets {
            let (_, unused) = own.verify(ticket.as_bytes()).unwrap();
            Reservation::of(Some(&unused)).await.unwrap().use_up();
        }
        tokio::time::advance(LIFETIME + Duration::from_millis(1)).await;
        // The wall clock has gone on as well, and then it is what it was.
        let later = since_1970(wall_clock::now()) + LIFETIME + Duration::from_secs(1);
        assert_eq!(own.used.lock().forget_until(later), 0);
        for ticket in &tickets {
            assert_eq!(own.verify(ticket.as_bytes()).err(), Some(IdentityFault::SpentTicket));
        }
        // Those that are issued now are good.
        assert!(own.verify(issue(&own, 60).as_bytes()).is_ok());
    }

    /// Other nodes that know one ticket at most, or cannot be asked.
    #[derive(Default)]
    struct Nodes {
        used: Mutex<Vec<Vec<u8>>>,
        are_away: AtomicBool,
    }

    impl UsedTickets for Nodes {
        fn use_once<'a>(&'a self, ticket: &'a [u8]) -> Pin<Box<dyn Future<Output = Option<bool>> + Send + 'a>> {
            let mut used = self.used.lock();
            let is_new = !used.iter().any(|other| other == ticket);
            let is_away = self.are_away.load(Ordering::Relaxed);
            if is_new && !is_away {
                used.push(ticket.to_vec());
            }
            Box::pin(std::future::ready((!is_away).then_some(is_new)))
        }

        fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
            spawn(task);
        }
    }

    /// Other nodes that mark the ticket at once, and answer when they may.
    #[derive(Default)]
    struct SlowNodes {
        nodes: Nodes,
        may_answer: Notify,
    }

    impl UsedTickets for SlowNodes {
        fn use_once<'a>(&'a self, ticket: &'a [u8]) -> Pin<Box<dyn Future<Output = Option<bool>> + Send + 'a>> {
            Box::pin(async move {
                let answer = self.nodes.use_once(ticket).await;
                self.may_answer.notified().await;
                answer
            })
        }

        fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
            spawn(task);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the tasks of a test end with the test")]
    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    #[tokio::test]
    async fn a_client_that_leaves_while_other_nodes_are_asked_about_its_ticket_can_come_back_with_it() {
        let (tickets, nodes) = (Arc::new(Tickets::new(None).unwrap()), Arc::new(SlowNodes::default()));
        tickets.share_with(nodes.clone());
        let ticket = issue(&tickets, 60);
        let verify = || tickets.verify(ticket.as_bytes()).map(|(_, unused)| unused);
        let first = verify().unwrap();
        let mut leaves = Box::pin(Reservation::of(Some(&first)));
        assert!(timeout(Duration::from_millis(50), &mut leaves).await.is_err(), "the others are asked");
        assert_eq!(nodes.nodes.used.lock().len(), 1, "they know that it is used");
        drop(leaves);
        nodes.may_answer.notify_one();
        while verify().is_err() {
            yield_now().await;
        }
        Reservation::of(Some(&verify().unwrap())).await.expect("the others know that it is used here").use_up();
        assert_eq!(verify().err(), Some(IdentityFault::SpentTicket));
    }

    #[tokio::test]
    async fn a_ticket_is_used_on_one_of_all_nodes_and_once_on_each_while_they_cannot_be_asked() {
        let nodes = Arc::new(Nodes::default());
        let [here, there] = [(); 2].map(|()| {
            let tickets = Arc::new(Tickets::new(Some(&[7; 32])).unwrap());
            tickets.share_with(nodes.clone());
            tickets
        });
        let verify = |tickets: &Arc<Tickets>, ticket: &str| tickets.verify(ticket.as_bytes()).map(|(_, unused)| unused);
        let spent = Error::from(IdentityFault::SpentTicket);
        let first = issue(&here, 60);
        let (own, foreign) = (verify(&here, &first).unwrap(), verify(&there, &first).unwrap());
        // A request that opens no stream gives its ticket back to its own node.
        drop(Reservation::of(Some(&own)).await.unwrap());
        assert_eq!(Reservation::of(Some(&foreign)).await.err(), Some(spent));
        assert_eq!(verify(&there, &first).err(), Some(IdentityFault::SpentTicket), "remembered without asking again");
        Reservation::of(Some(&verify(&here, &first).unwrap())).await.unwrap().use_up();
        assert_eq!(verify(&here, &first).err(), Some(IdentityFault::SpentTicket));
        assert_eq!(nodes.used.lock().len(), 1);

        nodes.are_away.store(true, Ordering::Relaxed);
        let second = issue(&here, 60);
        for tickets in [&here, &there] {
            Reservation::of(Some(&verify(tickets, &second).unwrap())).await.unwrap().use_up();
            assert_eq!(verify(tickets, &second).err(), Some(IdentityFault::SpentTicket));
        }
    }
}

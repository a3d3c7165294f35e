//! Tests of the engine in memory alone.

use tokio::time::Instant;

use super::*;
use crate::model::Address;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

struct Linked {
    link: Connection,
    inbox: mpsc::Receiver<Published>,
}

impl Linked {
    async fn new(server: &MemoryServer, node: NodeId) -> Self {
        let (sender, inbox) = mpsc::channel(64);
        let link = server.connect(node, sender).await.unwrap_or_else(|fault| panic!("{fault}"));
        link.directory.hello(0, false).await.expect("a hello");
        link.directory.beat(Phase::Up, &About::default()).await.expect("a beat");
        Self { link, inbox }
    }

    fn directory(&self) -> &dyn Directory {
        &*self.link.directory
    }

    async fn published(&mut self) -> Vec<u8> {
        timeout(Duration::from_secs(5), self.inbox.recv()).await.expect("in time").expect("something").bytes.to_vec()
    }
}

fn phone() -> TenantAddress {
    TenantAddress::of(&Address::new("bob", "phone").expect("ids"))
}

#[tokio::test(start_paused = true)]
async fn a_device_is_claimed_moved_and_released() {
    let server = MemoryServer::new(1);
    let (mut one, two) = (Linked::new(&server, ONE).await, Linked::new(&server, TWO).await);
    let phone = &phone();
    let Ok(Claim::New { term, sure: true }) = one.directory().claim(phone, 1).await else { panic!("new") };
    assert_eq!(one.directory().claim(phone, 1).await, Ok(Claim::Mine(term)));
    let first = Entry { node: ONE, term };
    assert_eq!(two.directory().claim(phone, 1).await, Ok(Claim::Held(first)));
    let second = two.directory().take_over(phone, first, false).await.unwrap().expect("moved");
    assert!(second > term);
    assert_eq!(one.published().await, format!("NM{term} 3 bobphone").into_bytes());
    assert_eq!(two.directory().take_over(phone, first, false).await, Ok(Some(second)), "asked again");
    assert_eq!(one.directory().revive(phone, term).await, Ok(None));
    assert_eq!(one.directory().absent(phone, first).await, Ok(Found::At(Entry { node: TWO, term: second }, false)));
    two.directory().release(phone, second).await.unwrap();
    assert_eq!(one.directory().find(phone).await, Ok(Found::Nobody));
}

#[tokio::test(start_paused = true)]
async fn of_two_who_tell_the_higher_term_wins_and_the_other_is_told_to_yield() {
    let server = MemoryServer::new(1);
    let (mut one, two) = (Linked::new(&server, ONE).await, Linked::new(&server, TWO).await);
    let phone = &phone();
    assert_eq!(one.directory().tell(&[(phone.clone(), 7)]).await, Ok(vec![Told::Mine(7)]));
    let lost = Told::Lost(Entry { node: ONE, term: 7 });
    assert_eq!(two.directory().tell(&[(phone.clone(), 6), (phone.clone(), 7)]).await, Ok(vec![lost, lost]));
    assert_eq!(two.directory().tell(&[(phone.clone(), 8)]).await, Ok(vec![Told::Mine(8)]));
    assert_eq!(one.published().await, b"NY8 3 bobphone");
    assert_eq!(two.directory().tell(&[(phone.clone(), 3)]).await, Ok(vec![Told::Mine(8)]));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lost_its_data_is_a_new_generation_and_sure_when_all_have_told() {
    let server = MemoryServer::new(1);
    let (one, _two) = (Linked::new(&server, ONE).await, Linked::new(&server, TWO).await);
    let (snapshot, known) = (server.snapshot(), one.directory().generation());
    server.flush();
    assert_eq!(one.directory().find(&phone()).await, Err(Fault::Reborn));
    assert!(one.link.lost.reason().is_some());
    server.restart(Some(&snapshot));
    let (sender, _inbox) = mpsc::channel(64);
    let link = server.connect(ONE, sender).await.unwrap_or_else(|fault| panic!("{fault}"));
    let hello = link.directory.hello(known, true).await.unwrap();
    assert!(hello.generation > known, "{} > {known}", hello.generation);
    assert_eq!(link.directory.find(&phone()).await, Ok(Found::Unsure));
    link.directory.told(hello.debt.expect("owes")).await.unwrap();
    assert_eq!(link.directory.find(&phone()).await, Ok(Found::Unsure), "the other one owes");
    sleep(Duration::from_secs(7)).await;
    assert_eq!(link.directory.find(&phone()).await, Ok(Found::Nobody), "its debt lapsed");
}

#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_replaced_and_buried() {
    let server = MemoryServer::new(1);
    let one = Linked::new(&server, ONE).await;
    let Ok(Claim::New { term, .. }) = one.directory().claim(&phone(), 0).await else { panic!("new") };
    sleep(Duration::from_secs(7)).await;
    let two = Linked::new(&server, TWO).await;
    let entry = Entry { node: ONE, term };
    assert_eq!(two.directory().find(&phone()).await, Ok(Found::At(entry, true)));
    let Ok(Claim::Over(term)) = two.directory().claim(&phone(), 0).await else { panic!("over") };
    one.directory().bury(&phone(), Entry { node: TWO, term }).await.unwrap();
    assert_eq!(one.directory().find(&phone()).await, Ok(Found::At(Entry { node: TWO, term }, false)), "it lives");
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_fails_what_waits_and_a_stalled_one_is_lost_after_a_second() {
    let server = MemoryServer::new(1);
    let one = Linked::new(&server, ONE).await;
    let phone = phone();
    let (answer, ()) = tokio::join!(one.directory().find(&phone), async { server.cut(ONE) });
    assert!(matches!(answer, Err(Fault::Late(_))), "{answer:?}");
    assert!(matches!(one.directory().find(&phone).await, Err(Fault::Down(_))));
    assert!(server.connect(ONE, mpsc::channel(1).0).await.is_err());
    server.mend(ONE);
    let again = Linked::new(&server, ONE).await;
    server.stall(ONE, Duration::from_secs(3));
    let began = Instant::now();
    assert!(matches!(again.directory().find(&phone).await, Err(Fault::Late(_))));
    assert_eq!(began.elapsed(), CALL_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn what_is_published_reaches_those_who_listen_on_the_same_server_in_order() {
    let server = MemoryServer::new(1);
    let (one, mut two) = (Linked::new(&server, ONE).await, Linked::new(&server, TWO).await);
    let user = phone().user;
    let publish = |channel: Channel, bytes: &'static [u8]| one.link.wire.publish(channel, Bytes::from_static(bytes));
    assert_eq!(publish(Channel::Presence(user.clone()), b"0").await, Ok(0));
    two.link.wire.subscribe(&user).await.unwrap();
    let all = [
        publish(Channel::Requests(TWO), b"1"),
        publish(Channel::Presence(user), b"2"),
        publish(Channel::Answers(TWO), b"3"),
    ];
    for receivers in all {
        assert_eq!(receivers.await, Ok(1));
    }
    for expected in [b"1", b"2", b"3"] {
        assert_eq!(two.published().await, expected);
    }
    server.split(&[TWO]);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(publish(Channel::Requests(TWO), b"4").await, Ok(0));
    assert!(!server.joins(ONE, TWO));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_commands_loses_its_links() {
    let server = MemoryServer::new(1);
    let one = Linked::new(&server, ONE).await;
    server.set_refusing(Some("NOREPLICAS"));
    assert_eq!(one.directory().find(&phone()).await, Err(down("NOREPLICAS")));
    assert_eq!(one.link.lost.reason().as_deref(), Some("NOREPLICAS"));
}

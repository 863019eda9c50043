use super::*;

/// Free UDP ports of this machine.
fn ports(n: usize) -> Vec<u16> {
    let sockets: Vec<_> = (0..n).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
}

async fn member_of(zone: &str, id: &str, port: u16, seed: u16, started_ns: i64) -> Gossip {
    let config = GossipConfig {
        seeds: vec![format!("127.0.0.1:{seed}")],
        listen: format!("127.0.0.1:{port}"),
        zone: zone.to_owned(),
        interval: Duration::from_millis(50),
        ..GossipConfig::default()
    };
    let myself = Myself {
        role: "ingester",
        id: id.to_owned(),
        address: format!("{id}:1"),
        started_ns,
        state: MemberState::New,
    };
    let gossip = config.start(myself).await.unwrap();
    let running = gossip.clone();
    tokio::spawn(async move { running.run().await });
    gossip
}

/// Waits for what gossip brings sooner or later.
async fn until(mut check: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in 30 s");
}

#[tokio::test]
async fn members_find_each_other() {
    let ports = ports(2);
    let a = member_of("a", "ingester-0", ports[0], ports[1], 1).await;
    let b = member_of("a", "ingester-1", ports[1], ports[0], 1).await;
    let mut seen = a.members("ingester");
    // Known first, and alive as soon as the failure detector has heard of it twice.
    until(async || seen.borrow_and_update().get(1).is_some_and(|member| member.is_alive)).await;
    let members = seen.borrow().clone();
    assert_eq!(
        (&*members[1].id, &*members[1].zone, &*members[1].address),
        ("ingester-1", "a", "ingester-1:1")
    );
    assert_eq!(members[1].state, MemberState::New);
    for gossip in [&a, &b] {
        until(async || gossip.advance(false).await == MemberState::Joining).await;
    }
    until(async || seen.borrow_and_update()[1].state == MemberState::Joining).await;
    assert!(a.roles().contains_key("ingester"));

    for gossip in [&a, &b] {
        until(async || gossip.advance(true).await == MemberState::Active).await;
    }
    until(async || seen.borrow_and_update()[1].takes_writes()).await;
    // Both are of one zone: it is gone when the other one stands up for it no more.
    b.set_state(MemberState::Left).await;
    until(async || b.advance(true).await == MemberState::Gone).await;
    until(async || !seen.borrow_and_update()[1].is_there()).await;
    b.set_state(MemberState::Leaving).await;
    assert_eq!(b.advance(true).await, MemberState::Gone, "no way back");
}

#[tokio::test]
async fn a_zone_without_others_knows_whoever_comes() {
    let ports = ports(1);
    let alone = member_of("", "ingester-0", ports[0], ports[0], 1).await;
    assert_eq!(alone.zone(), "ingester-0");
    assert_eq!(alone.advance(false).await, MemberState::Joining);
    assert_eq!(alone.advance(true).await, MemberState::Active);
}

#[tokio::test]
async fn addresses_that_are_none() {
    let config = GossipConfig { seeds: vec!["x".into()], listen: "here".into(), ..GossipConfig::default() };
    let myself = Myself {
        role: "ingester",
        id: "i".into(),
        address: String::new(),
        started_ns: 0,
        state: MemberState::Joining,
    };
    let error = config.start(myself).await.err().unwrap().to_string();
    assert!(error.starts_with("membership.listen \"here\""), "{error}");
}

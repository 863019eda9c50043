use super::*;

fn seen(role: &'static str, id: &'static str, zone: &'static str, state: MemberState) -> Seen<'static> {
    Seen { role, id, zone, state, is_alive: true, knows: "", heard_of: Some("") }
}

#[test]
fn what_is_told() {
    let own = seen("ingester", "i-0", "a", MemberState::Active);
    let new = seen("ingester", "i-1", "a", MemberState::New);
    let joining = seen("ingester", "i-2", "a", MemberState::Joining);
    let dead = Seen { is_alive: false, ..seen("ingester", "i-3", "a", MemberState::Leaving) };
    let all = [
        own,
        new,
        joining,
        dead,
        seen("ingester", "i-4", "a", MemberState::Gone),
        seen("ingester", "i-5", "b", MemberState::New),
        Seen { is_alive: false, ..seen("ingester", "i-6", "b", MemberState::New) },
        seen("querier", "i-7", "a", MemberState::Active),
    ];
    let Told { knows, heard_of } = told(&own, all.into_iter());
    assert_eq!(knows, "i-0,i-2,i-3");
    assert_eq!(heard_of, "ingester/i-1,ingester/i-5");
}

#[test]
fn new_until_everybody_who_lives_has_heard() {
    let own = seen("ingester", "i-0", "a", MemberState::New);
    let mut others = vec![
        own,
        Seen { heard_of: Some("ingester/i-9,ingester/i-0"), ..seen("querier", "q", "", MemberState::Active) },
        Seen { is_alive: false, ..seen("compactor", "dead", "", MemberState::Active) },
        Seen { heard_of: None, ..seen("compactor", "silent", "", MemberState::Active) },
    ];
    assert_eq!(next(&own, others.iter().copied(), true), MemberState::Joining);
    others.push(Seen { heard_of: Some("querier/i-0"), ..seen("querier", "q-1", "", MemberState::Active) });
    assert_eq!(next(&own, others.iter().copied(), true), MemberState::New);
}

#[test]
fn joining_until_it_is_ready_and_known_in_its_zone() {
    let own = seen("ingester", "i-0", "a", MemberState::Joining);
    let mut others = vec![
        own,
        Seen { knows: "i-1,i-0", ..seen("ingester", "i-1", "a", MemberState::Active) },
        Seen { is_alive: false, ..seen("ingester", "i-2", "a", MemberState::Active) },
        seen("ingester", "i-3", "a", MemberState::Gone),
        seen("ingester", "i-4", "b", MemberState::Active),
        seen("querier", "q", "a", MemberState::Active),
    ];
    assert_eq!(next(&own, others.iter().copied(), true), MemberState::Active);
    assert_eq!(next(&own, others.iter().copied(), false), MemberState::Joining);
    others.push(Seen { knows: "i-5,i-00", ..seen("ingester", "i-5", "a", MemberState::New) });
    assert_eq!(next(&own, others.iter().copied(), true), MemberState::Joining);
    let leaving = Seen { state: MemberState::Leaving, ..own };
    assert_eq!(next(&leaving, others.iter().copied(), true), MemberState::Leaving);
}

#[test]
fn left_until_nobody_of_its_zone_knows_it() {
    let own = seen("ingester", "i-0", "a", MemberState::Left);
    let mut others = vec![
        own,
        Seen { knows: "i-1", ..seen("ingester", "i-1", "a", MemberState::Active) },
        Seen { is_alive: false, knows: "i-0", ..seen("ingester", "i-2", "a", MemberState::Active) },
        Seen { knows: "i-0", ..seen("querier", "q", "a", MemberState::Active) },
        Seen { knows: "i-0", ..seen("ingester", "i-3", "b", MemberState::Active) },
    ];
    assert_eq!(told(&others[1], others.iter().copied()).knows, "i-1,i-2");
    assert_eq!(next(&own, others.iter().copied(), true), MemberState::Gone);
    others.push(Seen { knows: "i-4,i-0", ..seen("ingester", "i-4", "a", MemberState::Active) });
    assert_eq!(next(&own, others.iter().copied(), true), MemberState::Left);
}

use super::*;
use triptych_model::Kind;

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

#[test]
fn what_is_dropped_is_given_back() {
    let budget = MemoryBudget::new("test", 100);
    let held = budget.reserve(60).unwrap();
    let refused = budget.reserve(50).unwrap_err();
    assert_eq!(refused.to_string(), "test: 50 bytes wanted, 60 in use, the limit is 100");
    assert_eq!((refused.kind, refused.retry_after.is_some()), (Kind::Unavailable, true));
    let never = budget.reserve(101).unwrap_err();
    assert_eq!((never.kind, never.retry_after), (Kind::Exhausted, None));
    drop(held);
    assert_eq!(budget.used(), 0);
    assert!(budget.reserve(100).is_ok());
}

#[test]
fn every_level_says_whose_doing_it_is() {
    let share = MemoryBudget::new("query memory of the process", 900);
    let (a, b) = (share.tenant(&tenant("a")), share.tenant(&tenant("b")));
    let query = a.below("query memory", 500);
    let refused = query.reserve(501).unwrap_err();
    assert_eq!((refused.kind, refused.retry_after), (Kind::Exhausted, None), "too big by itself");
    assert_eq!((share.used(), a.used(), query.used()), (0, 0, 0), "nothing of what was refused stays");

    let held = query.reserve(500).unwrap();
    let more = a.reserve(300).unwrap();
    assert_eq!((share.used(), a.used(), query.used()), (800, 800, 500));
    let refused = a.reserve(1).unwrap_err();
    assert_eq!((refused.kind, refused.retry_after.is_some()), (Kind::Exhausted, true), "{refused}");
    assert!(
        refused.to_string().contains("tenant a holds 800 bytes and wants 1 more; 100 of 900 bytes are free")
    );
    let small = b.reserve(80).unwrap();
    let refused = b.reserve(21).unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable, "not b's doing: {refused}");
    drop((held, more, small));
    assert_eq!((share.used(), a.used(), b.used(), query.used()), (0, 0, 0, 0));
}

/// Everybody takes as much as is granted, in small steps and in turn, until nobody gets more.
fn fill(share: &MemoryBudget, wants: &[usize]) -> Vec<usize> {
    let budgets: Vec<_> = (0..wants.len()).map(|i| share.tenant(&tenant(&format!("t{i}")))).collect();
    let mut held = Vec::new();
    loop {
        let before = held.len();
        for (budget, want) in budgets.iter().zip(wants) {
            if budget.used() < *want {
                held.extend(budget.reserve(10));
            }
        }
        if held.len() == before {
            return budgets.iter().map(MemoryBudget::used).collect();
        }
    }
}

#[test]
fn the_greedy_get_the_same_and_the_modest_all_they_want() {
    let share = MemoryBudget::new("heads", 100_000);
    assert_eq!(fill(&share, &[usize::MAX]), [88_880]);
    let got = fill(&share, &[usize::MAX, 1000, usize::MAX, 5000]);
    assert_eq!((got[1], got[3]), (1000, 5000), "{got:?}");
    assert!(got[0].abs_diff(got[2]) <= 10 && got[0] > 40_000, "{got:?}");
}

#[test]
fn who_comes_late_is_served_while_the_flood_is_refused() {
    let share = MemoryBudget::new("heads", 100_000);
    let flood = share.tenant(&tenant("flood"));
    let mut held = Vec::new();
    while let Ok(more) = flood.reserve(100) {
        held.push(more);
    }
    let late = share.tenant(&tenant("late"));
    let mut got = Vec::new();
    for _ in 0..50 {
        got.push(late.reserve(100).unwrap());
        assert_eq!(flood.check(100).unwrap_err().kind, Kind::Exhausted);
    }
}

#[test]
fn tenants_that_hold_nothing_are_forgotten() {
    let share = MemoryBudget::new("heads", 1 << 30);
    let held: Vec<_> = (0..10_000).map(|i| share.tenant(&tenant(&format!("t{i}")))).collect();
    assert_eq!(share.tenants(), 10_000);
    let again = share.tenant(&tenant("t7"));
    drop(held);
    assert_eq!(share.tenants(), 1);
    drop(again);
    assert_eq!(share.tenants(), 0);
}

#[test]
fn what_was_noted_counts_and_may_pass_the_limit() {
    let share = MemoryBudget::new("heads", 100);
    let a = share.tenant(&tenant("a"));
    a.check(10).unwrap();
    a.add(150);
    assert_eq!((share.used(), a.used()), (150, 150));
    assert!(a.check(1).is_err() && share.check(1).is_err());
    a.add(-150);
    a.check(10).unwrap();
}

#[test]
fn threads_never_pass_a_limit() {
    let share = MemoryBudget::new("test", 200);
    std::thread::scope(|scope| {
        for i in 0..4 {
            let mine = share.tenant(&tenant(&format!("t{i}")));
            let share = &share;
            scope.spawn(move || {
                for _ in 0..10_000 {
                    let held = mine.reserve(90);
                    assert!(share.used() <= 200 + 4 * 90, "a refused try is visible for an instant");
                    drop(held);
                }
            });
        }
    });
    assert_eq!(share.used(), 0);
}

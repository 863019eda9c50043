use std::collections::{BTreeMap, BTreeSet};

use triptych_metrics::head::FlushOptions;
use triptych_metrics::{Head, HeadConfig};
use triptych_model::batch::MetricsBuilder;
use triptych_model::metrics::{LabelsSelect, Sample};
use triptych_model::traces::TagsSelect;
use triptych_model::{Kind, Labels, Share, TenantId};
use triptych_ring::Member;
use triptych_runtime::{QueryContext, random};

use super::*;

fn deps(bucket: Bucket, node: &str, members: Members) -> Deps {
    Deps {
        bucket,
        memory: MemoryBudget::new("caches", 1 << 20),
        pools: Handles::current(),
        node: node.into(),
        members,
        settle_time: Duration::ZERO,
        limits: TenantLimits::default(),
    }
}

#[tokio::test]
async fn who_does_not_know_the_bucket_answers_nothing() {
    for (sync_age_max, is_fresh) in [(Duration::from_secs(60), true), (Duration::ZERO, false)] {
        let config = Config { sync_age_max, ..Config::default() };
        let deps = deps(triptych_blob::memory(), "store-gateway-0", alone());
        let gateway = config.build(deps);
        let ctx = QueryContext::unlimited(TenantId::single());
        let ask = async || {
            let tags = gateway.traces().tag_names(&ctx, &TagsSelect::default()).await.map(drop);
            let labels = gateway.logs().label_names(&ctx, &Default::default()).await.map(drop);
            let names = gateway.metrics().label_names(&ctx, &Default::default()).await.map(drop);
            [tags, labels, names].map(|answer| answer.err().map(|e| e.kind))
        };
        assert!(!gateway.is_ready());
        assert_eq!(ask().await, [Some(Kind::Unavailable); 3], "before the first look");
        gateway.sync().await.unwrap();
        assert!(gateway.is_ready());
        let expected = (!is_fresh).then_some(Kind::Unavailable);
        assert_eq!(ask().await, [expected; 3], "{sync_age_max:?} after the last look");
    }
}

/// As many blocks as there are series; each has one of them.
/// Blocks whose ids, and so their owners, are the same each time.
async fn fill(bucket: &Bucket, blocks: i64) {
    random::seed(Some(1));
    for i in 0..blocks {
        let head = Head::new(HeadConfig::default());
        let labels = Labels::from_pairs([("__name__", "up".to_owned()), ("i", format!("{i:02}"))]);
        let mut batch = MetricsBuilder::default();
        batch.series(labels.hash64(), labels.as_encoded(), &[Sample { t_ms: 1_000 + i, value: 1.0 }]);
        assert_eq!(head.append(batch.plain()).unwrap().refused_items(), 0);
        let options = FlushOptions { labels: BTreeMap::new(), source: "test".to_owned(), now_ms: 2_000 };
        head.flush(bucket, &TenantId::single(), &options).await.unwrap();
    }
}

fn members(names: &[&str]) -> Members {
    let members: Arc<[_]> = names.iter().map(|name| Arc::new(Member::new(name, "", ""))).collect();
    watch::Sender::new(members).subscribe()
}

#[tokio::test]
async fn what_it_will_own_is_open_before_it_is_ready() {
    let bucket = triptych_blob::memory();
    fill(&bucket, 24).await;
    for (names, least, most) in
        [(&["s-0"][..], 24, 24), (&["s-0", "s-1"], 24, 24), (&["s-0", "s-1", "s-2", "s-3"], 4, 20)]
    {
        // This one joins: the others do not count it yet.
        let gateway = Config::default().build(deps(bucket.clone(), "s-0", members(&names[1..])));
        assert!(!gateway.is_ready());
        gateway.sync().await.unwrap();
        let open = gateway.metrics.open();
        assert!(gateway.is_ready() && (least..=most).contains(&open), "{names:?}: {open} of 24 are open");
    }
}

#[tokio::test]
async fn each_answers_for_its_share() {
    let bucket = triptych_blob::memory();
    fill(&bucket, 24).await;
    let names: Arc<[Arc<str>]> = ["s-0", "s-1", "s-2"].map(Arc::from).into();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for mine in 0..3 {
        // None of them knows any other.
        let gateway = Config::default().build(deps(bucket.clone(), &names[mine], alone()));
        gateway.sync().await.unwrap();
        let ctx = QueryContext::unlimited(TenantId::single());
        let everything = LabelsSelect::default();
        assert_eq!(gateway.metrics().series(&ctx, &everything).await.unwrap().len(), 24, "it knows all");
        let ctx = ctx.with_share(Share::new(names.clone(), mine).unwrap());
        let own = gateway.metrics().label_values(&ctx, "i", &everything).await.unwrap();
        found.push(own.into_iter().collect());
    }
    assert!(found.iter().all(|own| !own.is_empty()), "{found:?}");
    assert_eq!(found.iter().map(BTreeSet::len).sum::<usize>(), 24, "{found:?}");
    assert_eq!(found.into_iter().flatten().collect::<BTreeSet<_>>().len(), 24);
}

//! Faults, one after the other and one over the other, drawn from the seed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::bucket::BucketFaults;
use crate::dice::Dice;
use crate::disk::DiskFaults;
use crate::network::NetworkFaults;
use crate::world::{RETAIN, World};

/// Lets faults happen for a time, then returns with some of them still on.
pub async fn storm(world: &Arc<World>, mut dice: Dice, time: Duration) {
    let end = Instant::now() + time;
    let mut lasting = Vec::new();
    while Instant::now() < end {
        sleep(dice.ms(200..=5000)).await;
        lasting.push(AbortOnDropHandle::new(tokio::spawn(fault(world.clone(), dice.fork("fault")))));
        dice.number();
    }
}

async fn fault(world: Arc<World>, mut dice: Dice) {
    match dice.below(23) {
        0..=4 => kill_ingester(&world, &mut dice).await,
        5 => stop_ingester(&world, &mut dice).await,
        6..=7 => harm_disk(&world, &mut dice).await,
        8..=9 => harm_bucket(&world, &mut dice).await,
        10..=11 => take_bucket_away(&world, &mut dice).await,
        12..=14 => cut(&world, &mut dice).await,
        15 => harm_network(&world, &mut dice).await,
        16 => freeze(&world, &mut dice),
        17 => kill_store_gateway(&world, &mut dice).await,
        18 => kill_compactor(&world, &mut dice).await,
        19 => world.restart_stateless(&mut dice),
        20 => world.grow(),
        21 => leave(&world, &mut dice).await,
        _ => flush(&world, &mut dice).await,
    }
}

async fn kill_ingester(world: &World, dice: &mut Dice) {
    let Some(host) = dice.pick(&world.ingesters) else { return };
    host.kill(dice.chance(0.6));
    sleep(dice.ms(0..=8000)).await;
    // Where that fails, the end of the storm starts it.
    let _ = host.start();
}

/// One ingester leaves for good, where its zone keeps another one.
async fn leave(world: &World, dice: &mut Dice) {
    let Some(host) = dice.pick(&world.ingesters) else { return };
    let others = world.ingesters.iter().filter(|other| {
        other.machine.zone == host.machine.zone
            && other.machine.name != host.machine.name
            && other.is_active()
    });
    if host.is_active() && others.count() > 0 {
        host.leave(RETAIN + dice.ms(5_000..=20_000)).await;
    }
}

async fn stop_ingester(world: &World, dice: &mut Dice) {
    let Some(host) = dice.pick(&world.ingesters) else { return };
    host.stop(dice.ms(100..=20_000)).await;
    sleep(dice.ms(0..=3000)).await;
    let _ = host.start();
}

async fn harm_disk(world: &World, dice: &mut Dice) {
    let Some(host) = dice.pick(&world.ingesters) else { return };
    let faults = match dice.below(4) {
        0 => DiskFaults { is_full: true, ..DiskFaults::default() },
        1 => DiskFaults { sync_errors: 0.3, ..DiskFaults::default() },
        2 => DiskFaults { errors: 0.2, ..DiskFaults::default() },
        _ => DiskFaults { slow_ms: 3000, ..DiskFaults::default() },
    };
    world.journal.note(&host.machine.name, format_args!("{faults:?}"));
    host.machine.disk.set_faults(faults);
    sleep(dice.ms(500..=8000)).await;
    host.machine.disk.set_faults(DiskFaults::default());
}

async fn harm_bucket(world: &World, dice: &mut Dice) {
    let share = |dice: &mut Dice| dice.below(40) as f64 / 100.0;
    let faults = BucketFaults {
        errors: share(dice),
        answers_lost: share(dice),
        delay_ms: dice.pick(&[20, 200, 2000]).copied().unwrap_or(20),
    };
    world.journal.note("bucket", format_args!("{faults:?}"));
    world.bucket.set_faults(faults);
    sleep(dice.ms(1000..=15_000)).await;
    world.bucket.set_faults(BucketFaults::default());
}

async fn take_bucket_away(world: &World, dice: &mut Dice) {
    let mut machines = world.machines();
    if dice.chance(0.5) {
        // Who must not answer any more when that lasts.
        machines = world.store_gateways.iter().map(|host| host.machine.name.clone()).collect();
    }
    let Some(host) = dice.pick(&machines) else { return };
    world.journal.note(host, format_args!("cannot reach the bucket"));
    world.bucket.set_away(host, true);
    sleep(dice.ms(1000..=40_000)).await;
    world.bucket.set_away(host, false);
}

async fn cut(world: &World, dice: &mut Dice) {
    let machines = world.machines();
    let (Some(a), Some(b)) = (dice.pick(&machines), dice.pick(&machines)) else { return };
    world.journal.note(a, format_args!("cut off from {b}"));
    world.network.cut(a, b);
    sleep(dice.ms(1000..=15_000)).await;
    world.network.join(a, b);
}

async fn harm_network(world: &World, dice: &mut Dice) {
    let faults = NetworkFaults {
        lost: dice.below(30) as f64 / 100.0,
        twice: dice.below(30) as f64 / 100.0,
        delay_ms: dice.pick(&[5, 50, 500]).copied().unwrap_or(5),
    };
    world.journal.note("network", format_args!("{faults:?}"));
    world.network.set_faults(faults);
    sleep(dice.ms(1000..=10_000)).await;
    world.network.set_faults(NetworkFaults::default());
}

fn freeze(world: &World, dice: &mut Dice) {
    let time = dice.ms(1000..=30_000);
    match dice.below(3) {
        0 => {
            if let Some(host) = dice.pick(&world.compactors) {
                host.freeze(time);
            }
        }
        1 => {
            if let Some(host) = dice.pick(&world.store_gateways) {
                host.freeze(time);
            }
        }
        _ => {
            if let Some(host) = dice.pick(&world.ingesters) {
                host.freeze(time);
            }
        }
    }
}

async fn kill_store_gateway(world: &World, dice: &mut Dice) {
    let Some(host) = dice.pick(&world.store_gateways) else { return };
    host.kill();
    sleep(dice.ms(0..=8000)).await;
    host.start();
}

async fn kill_compactor(world: &World, dice: &mut Dice) {
    let Some(host) = dice.pick(&world.compactors) else { return };
    host.kill();
    sleep(dice.ms(0..=20_000)).await;
    host.start();
}

async fn flush(world: &World, dice: &mut Dice) {
    let Some(ingester) = dice.pick(&world.ingesters).and_then(|host| host.ingester()) else { return };
    world.journal.note("world", format_args!("flush asked for"));
    let _ = tokio::time::timeout(dice.ms(1000..=10_000), ingester.flush_all()).await;
}

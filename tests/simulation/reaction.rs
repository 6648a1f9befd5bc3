//! A scale-out leaves the time of each of its hops: with its activity, in the ledger and on `/metrics`, also when the control plane
//! is killed in the middle of it.

use beaufort::model::decision::ReasonCode;
use beaufort::model::scaling::{Reaction, Stage};
use beaufort::store::{Record, RecordQuery};

use super::*;

fn first_answer(world: &World) -> Option<Reaction> {
    let reactions = world.checks.seen.activities.values().filter_map(|activity| activity.reaction.clone());
    reactions.into_iter().find(|reaction| reaction.breach_at.is_some())
}

#[test]
fn a_scale_out_tells_how_long_each_hop_took() {
    for crash in [false, true] {
        let dir = Dir::new();
        let setup = Setup { data_dir: Some(dir.0.clone()), ..Setup::default() };
        sim::block_on(async {
            let mut world = World::new(8, setup).await.unwrap();
            let check = json!({"command": ["CMD-SHELL", "true"]});
            register(&mut world, "web", behaving("health@2s+start@400ms", &check)).await;
            let input = json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": 2});
            ecs(&mut world, "CreateService", input).await;
            assert!(world.run_until(30_000, |w| running(w) == 2).await);
            world.set_demand(&web(), 2.0 * 0.25 * 0.5);
            track_cpu(&mut world, 2, 8).await;
            world.run_for(20_000).await;
            assert_eq!(first_answer(&world), None, "on target, and yet it scaled");
            let loaded = world.now();
            world.set_demand(&web(), 2.0 * 0.25 * 0.95);
            assert!(world.run_until(20_000, |w| desired(w) > 2).await);
            if crash {
                world.crash(1_000).await;
            }
            assert!(world.run_until(60_000, |w| first_answer(w).is_some_and(|r| r.over)).await, "{:?}", first_answer(&world));
            let told = first_answer(&world).unwrap();
            assert!(told.breach_at.unwrap().since(loaded).abs() <= 1_000, "the breach began with the load: {told:?}");
            let [alarm, placed, runs, healthy] =
                [told.alarm_at, told.placed_at, told.running_at, told.healthy_at].map(|at| at.expect("every hop was made"));
            assert!(alarm.since(told.breach_at.unwrap()) >= 3_000, "three datapoints of a second: {told:?}");
            assert!(runs.since(placed) >= 400 && healthy.since(runs) >= 900, "{told:?}");
            assert_eq!((told.from, told.tasks), (2, told.to - 2));

            let app: Arc<_> = world.app().expect("it runs").clone();
            let records = app.store.records(RecordQuery::decisions()).await.unwrap();
            let done = records.iter().find_map(|(_, record)| match record {
                Record::Decision(decision) if decision.reason.code == ReasonCode::ScaleOutDone => Some(&decision.reason),
                _ => None,
            });
            assert_eq!(done.expect("the ledger tells it").evidence["hops_ms"]["total"], healthy.since(told.breach_at.unwrap()));
            let page = beaufort::export::prometheus::render(&app);
            for stage in Stage::ALL {
                let name = "beaufort_scaling_reaction_seconds_count";
                let line = format!("{name}{{cluster=\"default\",service=\"web\",stage=\"{}\"}} ", stage.as_str());
                let count = page.lines().find_map(|text| text.strip_prefix(&line)).unwrap_or_else(|| panic!("no {line}"));
                assert!(count.parse::<f64>().unwrap() >= 1.0, "{line}{count}");
            }
            drop(app);
            sound(&world);
        })
        .unwrap();
    }
}

//! Who is looked at when something changes: nobody else, and those that find no place not all the time.

use super::*;
use crate::decide::service::world::{World, instance_id, task};
use crate::model::task::{Origin, TaskStatus};
use crate::store::Rehearsal;

const AT: Timestamp = Timestamp(1_000_000);

fn dirty(queue: &mut Queue) -> Vec<String> {
    std::iter::from_fn(|| queue.next_dirty()).map(|key| key.service.to_string()).collect()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("c", name)
}

/// Four instances, and the services `web` and `other`, with a task on instance 0 and on instance 1.
fn world() -> (Rehearsal, Vec<Instance>, TaskId) {
    let (mut store, model) = (Rehearsal::default(), World::new(1, 100, 200, 4));
    let instances: Vec<Instance> = model.instances.values().map(|i| (**i).clone()).collect();
    let mut of_web = task(1, AT);
    of_web.instance = instance_id(0);
    let of_other = Task { id: task(2, AT).id, instance: instance_id(1), ..of_web.clone() };
    let origin = Origin { service: Some("other".into()), group: "service:other".to_owned(), ..(*of_other.origin).clone() };
    let id = of_web.id.clone();
    store.update(AT, |tx| {
        instances.iter().for_each(|i| tx.put(i.clone()));
        tx.put(Service { key: key("other"), ..model.service.clone() });
        tx.put(model.service.clone());
        tx.put(of_web);
        tx.put(Task { origin: Arc::new(origin), ..of_other });
    });
    (store, instances, id)
}

#[test]
fn an_instance_concerns_the_services_with_tasks_on_it() {
    let (mut store, instances, _) = world();
    let mut queue = Queue::default();
    let mut change = |instance: Instance| {
        let (_, commit) = store.update(AT, |tx| tx.put(instance));
        queue.note(&commit, &store.snapshot());
        dirty(&mut queue)
    };
    let away = |n: usize| Instance { agent_connected: false, disconnected_at: Some(AT), ..instances[n].clone() };
    assert_eq!(change(away(0)), ["web"]);
    assert_eq!(change(Instance { host_name: "renamed".to_owned(), ..away(0) }), [""; 0], "nothing that concerns a service");
    assert_eq!(change(instances[0].clone()), ["web"]);
    assert_eq!(change(away(1)), ["other"]);
    assert_eq!(change(away(3)), [""; 0]);
}

#[test]
fn a_refusal_stands_until_something_moves_and_is_not_tried_again_at_once() {
    let (mut store, instances, id) = world();
    let mut queue = Queue::default();
    let state = store.snapshot();
    let refused = |state: &State| Unplaced {
        service_moved: state.service_moved(&key("other")),
        room_moved: room_moved(state, &key("other")),
        refusals: 1,
        not_before: AT + 500,
        explained: AT,
    };
    queue.unplaced.insert(key("other"), refused(&state));
    assert!(queue.is_refused(&key("other"), &state) && !queue.is_refused(&key("web"), &state));

    // A task of another service ends, and there may be room.
    let mut end = |queue: &mut Queue, at: Timestamp| {
        let over = Task { last_status: TaskStatus::Stopped, stopped_at: Some(at), ..(*store.snapshot().tasks[&id]).clone() };
        let (_, commit) = store.update(at, |tx| tx.put(over));
        queue.note(&commit, &store.snapshot());
        (dirty(queue), store.snapshot())
    };
    let (concerned, state) = end(&mut queue, AT + 100);
    assert_eq!(concerned, ["web"]);
    assert_eq!(queue.next_wake(), Some(AT + 500), "later, as it was refused just now");
    assert!(!queue.is_refused(&key("other"), &state));
    queue.wake(AT + 500);
    assert_eq!(dirty(&mut queue), ["other"]);

    queue.unplaced.insert(key("other"), Unplaced { not_before: AT, ..refused(&state) });
    assert_eq!(end(&mut queue, AT + 600).0, ["other", "web"]);

    // So it is when an instance comes.
    let (_, commit) = store.update(AT + 700, |tx| tx.put(Instance { id: "new".into(), ..instances[0].clone() }));
    queue.note(&commit, &store.snapshot());
    assert_eq!(dirty(&mut queue), ["other"]);
}

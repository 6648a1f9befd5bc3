//! One copy of what many tasks repeat: origins, names, images. What a client or an agent sends comes as texts of its own; here equal
//! ones become one, before they are kept.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use super::Change;
use crate::model::task::{Origin, Task};

/// Before this many are held, nobody looks for those that are used no more.
const FEW: usize = 4_096;

#[derive(Default)]
pub(super) struct Pool {
    texts: Held<str>,
    origins: Held<Origin>,
}

struct Held<T: ?Sized> {
    set: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: ?Sized> Default for Held<T> {
    fn default() -> Held<T> {
        Held { set: HashSet::new(), sweep_at: FEW }
    }
}

impl<T: ?Sized + Hash + Eq> Held<T> {
    fn share(&mut self, one: &mut Arc<T>) {
        if let Some(held) = self.set.get(&**one) {
            *one = held.clone();
            return;
        }
        if self.set.len() >= self.sweep_at {
            self.set.retain(|held| Arc::strong_count(held) > 1);
            self.sweep_at = (2 * self.set.len()).max(FEW);
        }
        self.set.insert(one.clone());
    }
}

impl Pool {
    /// Nothing happens to a task that others hold already.
    pub(super) fn share(&mut self, change: &mut Change) {
        if let Change::Task(key, Some(task)) = change
            && let Some(task) = Arc::get_mut(task)
        {
            self.share_task(task);
            *key = task.id.clone();
        }
    }

    fn share_task(&mut self, task: &mut Task) {
        self.origins.share(&mut task.origin);
        task.each_shared_text(&mut |text| self.texts.share(text));
        task.containers.shrink_to_fit();
        task.containers.iter_mut().for_each(|container| container.bindings.shrink_to_fit());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::task::{Container, TaskStatus};
    use crate::store::tests::task;

    fn shared(pool: &mut Pool, id: usize, image: &str) -> Arc<Task> {
        let mut task = task(&id.to_string(), "web", "i", TaskStatus::Running);
        task.containers.push(Container::new("app".into(), "u", image));
        let mut change = Change::from(task);
        pool.share(&mut change);
        let Change::Task(key, Some(task)) = change else { unreachable!("a task was put") };
        assert!(std::ptr::eq(key.as_str(), task.id.as_str()));
        task
    }

    #[test]
    fn equal_tasks_share_what_is_equal_and_what_nobody_uses_goes() {
        let mut pool = Pool::default();
        let (a, b) = (shared(&mut pool, 1, "nginx"), shared(&mut pool, 2, "nginx"));
        assert!(Arc::ptr_eq(&a.origin, &b.origin) && Arc::ptr_eq(&a.containers[0].image, &b.containers[0].image));
        assert!(std::ptr::eq(a.instance.as_str(), b.instance.as_str()));
        for n in 0..3 * FEW {
            shared(&mut pool, n, &format!("image-{n}"));
        }
        assert!(pool.texts.set.len() <= FEW, "{}", pool.texts.set.len());
        assert!(Arc::ptr_eq(&a.containers[0].image, &shared(&mut pool, 3, "nginx").containers[0].image));
    }
}

//! Pages: MaxResults is 1 to 50, and 50 when it is not given; a token is the key of the last item of the page before.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::errors;
use crate::wire::fault::Fault;

pub struct Page<K> {
    pub after: Option<K>,
    size: usize,
}

pub fn page<K: DeserializeOwned>(token: Option<&str>, max_results: Option<i32>) -> Result<Page<K>, Fault> {
    let size = match max_results {
        None => 50,
        Some(size @ 1..=50) => size as usize,
        Some(size) => {
            let bound = if size < 1 { "greater than or equal to 1" } else { "less than or equal to 50" };
            return Err(errors::constraint("maxResults", size, &format!("Member must have value {bound}")));
        }
    };
    let read = |token: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok();
    let after = token.map(|token| read(token).ok_or_else(errors::next_token)).transpose()?;
    Ok(Page { after, size })
}

impl<K: Serialize> Page<K> {
    /// `items` begin behind `after`.
    pub fn of<T>(&self, mut items: impl Iterator<Item = (K, T)>) -> (Vec<T>, Option<String>) {
        let (mut taken, mut last) = (Vec::new(), None);
        for (key, item) in items.by_ref().take(self.size) {
            last = Some(key);
            taken.push(item);
        }
        let more = items.next().is_some();
        let token = |key: K| URL_SAFE_NO_PAD.encode(serde_json::to_vec(&key).expect("plain keys are JSON"));
        (taken, last.filter(|_| more).map(token))
    }
}

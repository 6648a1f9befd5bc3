//! Pages of lists. A token is the last key of the page before, so that a page does not depend on what came or went since.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::errors::invalid;
use crate::wire::fault::Fault;

/// ECS: "maxResults: between 1 and 100", and 100 when it is not given; ListServices says 10.
const MOST: i32 = 100;

pub struct Page {
    after: Option<String>,
    size: usize,
}

pub fn page(token: Option<String>, max_results: Option<i32>, default: i32) -> Result<Page, Fault> {
    let size = max_results.unwrap_or(default);
    if !(1..=MOST).contains(&size) {
        return Err(invalid(format!("Invalid maxResults: {size}. It must be between 1 and {MOST}.")));
    }
    let after = token.map(|t| read(&t).ok_or_else(|| invalid("Invalid token."))).transpose()?;
    Ok(Page { after, size: size as usize })
}

fn read(token: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    text.strip_prefix("1:").map(str::to_owned)
}

fn write(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("1:{key}"))
}

impl Page {
    /// `items` in ascending order of their keys.
    pub fn of<K: AsRef<str>, T>(self, items: impl Iterator<Item = (K, T)>) -> (Vec<T>, Option<String>) {
        self.take(items, |key, after| key > after)
    }

    /// `items` in descending order of their keys.
    pub fn of_descending<K: AsRef<str>, T>(self, items: impl Iterator<Item = (K, T)>) -> (Vec<T>, Option<String>) {
        self.take(items, |key, after| key < after)
    }

    fn take<K: AsRef<str>, T>(
        self,
        items: impl Iterator<Item = (K, T)>,
        beyond: fn(&str, &str) -> bool,
    ) -> (Vec<T>, Option<String>) {
        let mut items = items.skip_while(|(key, _)| self.after.as_deref().is_some_and(|after| !beyond(key.as_ref(), after)));
        let mut last = None;
        let mut taken = Vec::new();
        for (key, item) in items.by_ref().take(self.size) {
            last = Some(key);
            taken.push(item);
        }
        let more = items.next().is_some();
        (taken, last.filter(|_| more).map(|key| write(key.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(keys: &[&str], size: i32, descending: bool) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut token = None;
        loop {
            let items = keys.iter().map(|k| (k, k.to_string()));
            let page = page(token, Some(size), 100).unwrap();
            let (items, next) = if descending { page.of_descending(items) } else { page.of(items) };
            pages.push(items);
            token = next;
            if token.is_none() {
                return pages;
            }
        }
    }

    #[test]
    fn every_item_once() {
        assert_eq!(all(&["a", "b", "c", "d"], 2, false), [["a", "b"], ["c", "d"]]);
        assert_eq!(all(&["c", "b", "a"], 2, true), [vec!["c", "b"], vec!["a"]]);
        assert_eq!(all(&[], 2, false), [Vec::<String>::new()]);
    }

    #[test]
    fn a_page_goes_on_where_the_last_item_stood_even_when_it_is_gone() {
        let (_, token) = page(None, Some(1), 100).unwrap().of(["b", "c"].iter().map(|k| (k, *k)));
        let (items, _) = page(token, None, 100).unwrap().of(["a", "c"].iter().map(|k| (k, *k)));
        assert_eq!(items, ["c"]);
    }

    #[test]
    fn refused() {
        for (token, size) in [(None, Some(0)), (None, Some(101)), (Some("x"), None), (Some("e9:"), None)] {
            assert!(page(token.map(str::to_owned), size, 100).is_err());
        }
    }
}

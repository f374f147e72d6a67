//! What differs between two lists that share most of what is in them.

use std::cmp::Ordering;
use std::sync::Arc;

/// What was there, and what is there instead; at least one of them.
pub(crate) type Change<'a, T> = (Option<&'a Arc<T>>, Option<&'a Arc<T>>);

/// The differences between two lists that are sorted by `key`, each key once, in the order of keys. What is one and the
/// same in both is passed by without a look at it.
pub(crate) fn changes<'a, T, K: Ord + ?Sized>(
    before: &'a [Arc<T>],
    after: &'a [Arc<T>],
    key: impl Fn(&T) -> &K,
) -> Vec<Change<'a, T>> {
    let (mut changes, mut old, mut new) = (Vec::new(), before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) if Arc::ptr_eq(one, other) => {
                old.next();
                new.next();
                continue;
            }
            (Some(one), Some(other)) => key(one).cmp(key(other)),
        };
        changes.push(match order {
            Ordering::Less => (old.next(), None),
            Ordering::Equal => (old.next(), new.next()),
            Ordering::Greater => (None, new.next()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_is_no_change_and_what_only_reads_alike_is_one() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| Arc::new(name.to_owned()));
        let other = Arc::new("b".to_owned());
        let (before, after) = ([a.clone(), b.clone(), d.clone()], [a, other.clone(), c.clone(), d]);
        let found: Vec<(Option<String>, Option<String>)> = changes(&before, &after, |name| name.as_str())
            .into_iter()
            .map(|(old, new)| (old.map(|old| (**old).clone()), new.map(|new| (**new).clone())))
            .collect();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(found, [(text("b"), text("b")), (None, text("c"))]);
        let (old, new) = changes(&before, &after, |name| name.as_str())[0];
        assert!(Arc::ptr_eq(old.unwrap(), &b) && Arc::ptr_eq(new.unwrap(), &other));
        assert_eq!(changes(&before, &[], |name| name.as_str()).len(), 3);
    }
}

//! Lists that take no more room than they need.

/// The list in as much room as it needs. One that merely shrinks stays where it is as long as half of the room is in use: so
/// do mimalloc and others, and lists that grew by pushing begin with room for four.
pub(crate) fn exact<T>(list: Vec<T>) -> Box<[T]> {
    if list.len() == list.capacity() {
        return list.into();
    }
    let mut exact = Vec::with_capacity(list.len());
    exact.extend(list);
    exact.into()
}

//! What a request is to routing and forwarding, whichever version of HTTP brought it.

use crate::body::BodyLength;
use crate::request::RequestView;

/// The one thing that HTTP/1.1's slices and HTTP/2's header map have in common.
pub trait HeadView {
    /// A token, case-sensitive.
    fn method(&self) -> &str;

    /// `Host` or `:authority`; empty only in HTTP/1.0 without `Host`.
    fn authority(&self) -> &[u8];

    /// Not yet canonical; `*` for the asterisk form.
    fn path_and_query(&self) -> &[u8];

    /// Calls `visit(name, value)` for each end-to-end field in the order sent. `Host` is not among them:
    /// [`HeadView::authority`] is where the request goes.
    fn for_each_field(&self, visit: &mut dyn FnMut(&[u8], &[u8]));

    /// The value of the first end-to-end field of this name, in any spelling.
    fn field(&self, name: &str) -> Option<&[u8]>;

    /// How the body ends.
    fn body(&self) -> BodyLength;
}

impl HeadView for RequestView<'_> {
    fn method(&self) -> &str {
        RequestView::method(self)
    }

    fn authority(&self) -> &[u8] {
        RequestView::authority(self)
    }

    fn path_and_query(&self) -> &[u8] {
        RequestView::path_and_query(self)
    }

    fn for_each_field(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for field in self.end_to_end_fields() {
            visit(field.name, field.value);
        }
    }

    fn field(&self, name: &str) -> Option<&[u8]> {
        self.end_to_end_fields().find(|field| field.is(name)).map(|field| field.value)
    }

    fn body(&self) -> BodyLength {
        RequestView::body(self)
    }
}

//! Cuts JSON into objects as it arrives, so that no list is ever held as a whole.
//!
//! A list's answer is one document whose `items` can be many megabytes; a watch's is one document after the other. Where
//! an object begins and ends needs strings and brackets only; what an object is, `serde_json` says of each by itself.

/// The largest object, in octets. An API server takes 1.5 MiB by itself, and up to 3 MiB if it is told to.
const MAX_OBJECT: usize = 8 << 20;

/// What a list's answer may hold beside its items, in octets.
const MAX_REST: usize = 1 << 20;

/// How deep brackets may stand in brackets.
const MAX_DEPTH: u32 = 256;

/// Why something is no list and no stream of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// Not of the form that is needed.
    #[error("it is not the JSON that was asked for")]
    Form,
    /// It ends in the middle.
    #[error("it ends in the middle")]
    Short,
    /// An object, or what stands beside the items.
    #[error("an object is larger than {MAX_OBJECT} octets")]
    Large,
}

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `{"items": [OBJECT, OBJECT]}`, and more beside `items`.
    List,
    /// One object after the other.
    Stream,
}

/// Where the octets that come belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Outside of objects.
    Beside,
    /// Between the items of a list.
    Between,
    /// In an object, which began at this depth.
    Inside(u32),
}

/// Fed with octets, it hands out objects.
#[derive(Debug)]
pub(super) struct Splitter {
    form: Form,
    place: Place,
    depth: u32,
    text: Text,
    object: Vec<u8>,
    /// A list without its items.
    rest: Vec<u8>,
    /// Of the list itself: the text that ended last, and whether it names what follows.
    key: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    Escaped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// A text that began here in `rest`.
    Since(usize),
    /// The text is `"items"`.
    Items,
    /// `"items":`
    ItemsFollow,
    Other,
}

impl Splitter {
    /// Of a list's answer.
    pub(super) fn list() -> Self {
        Self::new(Form::List)
    }

    /// Of a watch's answer.
    pub(super) fn stream() -> Self {
        Self::new(Form::Stream)
    }

    fn new(form: Form) -> Self {
        let (object, rest) = (Vec::new(), Vec::new());
        Self { form, place: Place::Beside, depth: 0, text: Text::Outside, object, rest, key: Key::Other }
    }

    /// Takes what has arrived; each object that is complete is handed to `found`.
    pub(super) fn feed(&mut self, octets: &[u8], mut found: impl FnMut(&[u8])) -> Result<(), Broken> {
        let mut from = 0;
        for (at, octet) in octets.iter().enumerate() {
            match self.place {
                Place::Inside(begin) => {
                    self.scan(*octet)?;
                    if self.depth == begin && self.text == Text::Outside {
                        self.object.extend_from_slice(&octets[from..=at]);
                        found(&self.object);
                        self.object.clear();
                        self.place = if self.form == Form::List { Place::Between } else { Place::Beside };
                    }
                }
                Place::Between => match octet {
                    b'{' => (self.place, from) = (self.begin()?, at),
                    b']' => {
                        self.place = Place::Beside;
                        self.beside(*octet)?;
                    }
                    b',' | b' ' | b'\t' | b'\r' | b'\n' => {}
                    _ => return Err(Broken::Form),
                },
                Place::Beside if self.form == Form::Stream => match octet {
                    b'{' => (self.place, from) = (self.begin()?, at),
                    b' ' | b'\t' | b'\r' | b'\n' => {}
                    _ => return Err(Broken::Form),
                },
                Place::Beside => self.beside(*octet)?,
            }
        }
        if let Place::Inside(_) = self.place {
            if self.object.len() + octets.len() - from > MAX_OBJECT {
                return Err(Broken::Large);
            }
            self.object.extend_from_slice(&octets[from..]);
        }
        Ok(())
    }

    /// The list without its items, once nothing more comes; of a stream nothing is left.
    pub(super) fn finish(self) -> Result<Vec<u8>, Broken> {
        let is_whole = self.depth == 0 && self.place == Place::Beside && self.text == Text::Outside;
        match self.form {
            Form::List if !is_whole || self.rest.is_empty() => Err(Broken::Short),
            Form::Stream if !is_whole => Err(Broken::Short),
            Form::List | Form::Stream => Ok(self.rest),
        }
    }

    fn begin(&mut self) -> Result<Place, Broken> {
        let begin = self.depth;
        self.scan(b'{')?;
        Ok(Place::Inside(begin))
    }

    fn scan(&mut self, octet: u8) -> Result<(), Broken> {
        self.text = match (self.text, octet) {
            (Text::Inside, b'\\') => Text::Escaped,
            (Text::Outside, b'"') | (Text::Escaped, _) => Text::Inside,
            (Text::Inside, b'"') => Text::Outside,
            (Text::Inside, _) => Text::Inside,
            (Text::Outside, b'{' | b'[') => {
                self.depth += 1;
                Text::Outside
            }
            (Text::Outside, b'}' | b']') => {
                self.depth = self.depth.checked_sub(1).ok_or(Broken::Form)?;
                Text::Outside
            }
            (Text::Outside, _) => Text::Outside,
        };
        if self.depth > MAX_DEPTH { Err(Broken::Form) } else { Ok(()) }
    }

    /// Of a list, what is none of its items.
    fn beside(&mut self, octet: u8) -> Result<(), Broken> {
        if self.rest.len() >= MAX_REST {
            return Err(Broken::Large);
        }
        let was_outside = self.text == Text::Outside;
        self.scan(octet)?;
        self.rest.push(octet);
        if self.depth > 2 || (self.depth == 2 && octet != b'[') || !(was_outside || self.text == Text::Outside) {
            return Ok(());
        }
        self.key = match (self.key, octet) {
            (Key::ItemsFollow, b'[') => {
                self.place = Place::Between;
                Key::Other
            }
            (_, b'"') if was_outside => Key::Since(self.rest.len()),
            (Key::Since(begin), b'"') if self.rest[begin..] == *b"items\"" => Key::Items,
            (Key::Items, b':') => Key::ItemsFollow,
            (key, b' ' | b'\t' | b'\r' | b'\n') => key,
            _ => Key::Other,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// In pieces of this size.
    fn cut(mut splitter: Splitter, text: &str, size: usize) -> Result<(Vec<Value>, Vec<u8>), Broken> {
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            splitter.feed(piece, |object| found.push(serde_json::from_slice(object).unwrap()))?;
        }
        Ok((found, splitter.finish()?))
    }

    #[test]
    fn a_list_is_cut_the_same_wherever_its_pieces_end_and_in_whichever_order_its_fields_stand() {
        let items = json!([
            {"metadata": {"name": "a"}, "items": [{"items": [1, "]"]}]},
            {"text": "\"}]\\", "empty": {}, "umlaut": "ä\u{1f600}"},
            {},
        ]);
        for list in [
            json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": "7"}})
                .to_string(),
            format!(
                "{{\"kind\":\"List\",\"metadata\":{{\"items\":[1],\"resourceVersion\":\"7\"}},\"x\":\"items\",\n\"items\" :\t[ {} ] }}\n",
                &items.to_string()[1..items.to_string().len() - 1]
            ),
        ] {
            for size in 1..list.len() + 1 {
                let (found, rest) = cut(Splitter::list(), &list, size).unwrap();
                assert_eq!(Value::from(found), items, "{size}");
                let rest: Value = serde_json::from_slice(&rest).unwrap();
                assert_eq!((&rest["metadata"]["resourceVersion"], &rest["items"]), (&json!("7"), &json!([])), "{size}");
            }
        }
    }

    #[test]
    fn a_list_without_items_is_one() {
        for list in [r#"{"items":null,"metadata":{}}"#, r#"{"metadata":{}}"#, r#"{"items":[],"metadata":{}}"#] {
            let (found, rest) = cut(Splitter::list(), list, 3).unwrap();
            assert!(found.is_empty());
            assert_eq!(serde_json::from_slice::<Value>(&rest).unwrap()["metadata"], json!({}), "{list}");
        }
    }

    #[test]
    fn a_stream_is_cut_by_its_objects_and_not_by_its_lines() {
        let text = "{\"type\":\"ADDED\",\"object\":{\"a\":\"}{\"}}\n{\n  \"type\": \"BOOKMARK\"\n}{}\r\n";
        for size in 1..text.len() + 1 {
            let (found, _) = cut(Splitter::stream(), text, size).unwrap();
            assert_eq!(
                found,
                [json!({"type": "ADDED", "object": {"a": "}{"}}), json!({"type": "BOOKMARK"}), json!({})]
            );
        }
    }

    #[test]
    fn what_is_cut_short_and_what_is_something_else_is_told_apart() {
        let whole = r#"{"items":[{"a":1},{"b":2}],"metadata":{}}"#;
        for end in 0..whole.len() {
            assert_eq!(cut(Splitter::list(), &whole[..end], 4).unwrap_err(), Broken::Short, "{end}");
        }
        assert_eq!(cut(Splitter::list(), r#"{"items":[1]}"#, 9).unwrap_err(), Broken::Form);
        assert_eq!(cut(Splitter::list(), "}", 9).unwrap_err(), Broken::Form);
        assert_eq!(cut(Splitter::stream(), "404 page not found", 9).unwrap_err(), Broken::Form);
        assert_eq!(cut(Splitter::stream(), "{\"type\":", 9).unwrap_err(), Broken::Short);
        assert_eq!(cut(Splitter::list(), &"[".repeat(500), 9).unwrap_err(), Broken::Form);
    }

    #[test]
    fn an_object_is_bounded_and_a_list_is_not() {
        let item = format!("{{\"a\":\"{}\"}},", "x".repeat(1 << 20));
        let mut splitter = Splitter::list();
        splitter.feed(b"{\"items\":[", |_| {}).unwrap();
        let mut found = 0;
        for _ in 0..10 {
            item.as_bytes().chunks(64 << 10).for_each(|piece| splitter.feed(piece, |_| found += 1).unwrap());
        }
        assert_eq!(found, 10);
        let mut splitter = Splitter::stream();
        splitter.feed(b"{\"a\":\"", |_| {}).unwrap();
        let piece = vec![b'x'; 1 << 20];
        let fed: Result<Vec<()>, Broken> = (0..9).map(|_| splitter.feed(&piece, |_| {})).collect();
        assert_eq!(fed, Err(Broken::Large));
    }
}

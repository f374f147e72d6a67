//! JSON Patch (RFC 6902).

use serde_json::Value;

/// Why a patch cannot be applied. Nothing is half done: the target was given by value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonPatchError {
    #[error("a JSON patch is a list of operations, each with `op` and `path`")]
    NoOperations,
    #[error("`{0}` is no operation of a JSON patch")]
    UnknownOperation(String),
    #[error("there is nothing at `{0}`")]
    Missing(String),
    #[error("the value at `{0}` is another than the one that was tested for")]
    TestFailed(String),
}

/// What `target` is after `operations`.
pub(crate) fn patch(mut target: Value, operations: &Value) -> Result<Value, JsonPatchError> {
    let operations = operations.as_array().ok_or(JsonPatchError::NoOperations)?;
    for operation in operations {
        let word = |name: &str| operation[name].as_str().ok_or(JsonPatchError::NoOperations);
        let (op, path) = (word("op")?, word("path")?);
        match op {
            "add" => add(&mut target, path, operation["value"].clone())?,
            "remove" => drop(remove(&mut target, path)?),
            "replace" => *at(&mut target, path)? = operation["value"].clone(),
            "move" => {
                let value = remove(&mut target, word("from")?)?;
                add(&mut target, path, value)?;
            }
            "copy" => {
                let value = at(&mut target, word("from")?)?.clone();
                add(&mut target, path, value)?;
            }
            "test" if *at(&mut target, path)? == operation["value"] => {}
            "test" => return Err(JsonPatchError::TestFailed(path.to_owned())),
            other => return Err(JsonPatchError::UnknownOperation(other.to_owned())),
        }
    }
    Ok(target)
}

fn at<'a>(target: &'a mut Value, path: &str) -> Result<&'a mut Value, JsonPatchError> {
    target.pointer_mut(path).ok_or_else(|| JsonPatchError::Missing(path.to_owned()))
}

/// The container of a path, and the last name in it.
fn parent<'a>(target: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), JsonPatchError> {
    let (above, name) = path.rsplit_once('/').ok_or_else(|| JsonPatchError::Missing(path.to_owned()))?;
    Ok((at(target, above)?, name.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), JsonPatchError> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let missing = || JsonPatchError::Missing(path.to_owned());
    let (container, name) = parent(target, path)?;
    match container {
        Value::Object(fields) => drop(fields.insert(name, value)),
        Value::Array(items) => {
            let index = if name == "-" { items.len() } else { name.parse().map_err(|_| missing())? };
            if index > items.len() {
                return Err(missing());
            }
            items.insert(index, value);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return Err(missing()),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, JsonPatchError> {
    let missing = || JsonPatchError::Missing(path.to_owned());
    let (container, name) = parent(target, path)?;
    match container {
        Value::Object(fields) => fields.remove(&name).ok_or_else(missing),
        Value::Array(items) => {
            let index = name.parse().ok().filter(|index| *index < items.len()).ok_or_else(missing)?;
            Ok(items.remove(index))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_operation_does_what_the_rfc_says() {
        let target = json!({"a": {"b": 1}, "list": [1, 2], "x/y": 3});
        let cases = [
            (
                json!({"op": "add", "path": "/a/c", "value": 2}),
                json!({"a": {"b": 1, "c": 2}, "list": [1, 2], "x/y": 3}),
            ),
            (json!({"op": "add", "path": "/list/1", "value": 9}), json!({"a": {"b": 1}, "list": [1, 9, 2], "x/y": 3})),
            (json!({"op": "add", "path": "/list/-", "value": 9}), json!({"a": {"b": 1}, "list": [1, 2, 9], "x/y": 3})),
            (json!({"op": "remove", "path": "/x~1y"}), json!({"a": {"b": 1}, "list": [1, 2]})),
            (json!({"op": "replace", "path": "/a/b", "value": 7}), json!({"a": {"b": 7}, "list": [1, 2], "x/y": 3})),
            (json!({"op": "move", "from": "/a/b", "path": "/b"}), json!({"a": {}, "b": 1, "list": [1, 2], "x/y": 3})),
            (
                json!({"op": "copy", "from": "/list/0", "path": "/a/b"}),
                json!({"a": {"b": 1}, "list": [1, 2], "x/y": 3}),
            ),
            (json!({"op": "test", "path": "/a", "value": {"b": 1}}), target.clone()),
        ];
        for (operation, expected) in cases {
            assert_eq!(patch(target.clone(), &json!([operation])), Ok(expected), "{operation}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let target = json!({"list": [1]});
        let cases = [
            (json!([{"op": "remove", "path": "/none"}]), JsonPatchError::Missing("/none".into())),
            (json!([{"op": "add", "path": "/list/5", "value": 1}]), JsonPatchError::Missing("/list/5".into())),
            (json!([{"op": "test", "path": "/list", "value": []}]), JsonPatchError::TestFailed("/list".into())),
            (json!([{"op": "grow", "path": "/list"}]), JsonPatchError::UnknownOperation("grow".into())),
            (json!({}), JsonPatchError::NoOperations),
        ];
        for (operations, expected) in cases {
            assert_eq!(patch(target.clone(), &operations), Err(expected), "{operations}");
        }
    }
}

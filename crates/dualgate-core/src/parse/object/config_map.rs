//! v1 ConfigMap.

use std::collections::BTreeMap;

use super::read::{Field, Read, Reader};
use super::syntax;

pub(super) fn config_map(read: &mut Reader<'_>, root: Field<'_>) -> Read<BTreeMap<String, String>> {
    read.mapping(root, &["apiVersion", "kind", "metadata", "data", "binaryData", "immutable"])?;
    let field = root.get("data");
    let mut data = read.texts(field);
    data.retain(|key, _| read.check(field.get(key), key, syntax::data_key).is_ok());
    Ok(data)
}

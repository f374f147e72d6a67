//! How two versions of an object become one: the four languages of patches, and the sets of fields that server-side apply
//! keeps for each manager. All of it is functions of JSON values.

pub(crate) mod apply;
pub(crate) mod fields;
pub(crate) mod json_merge;
pub(crate) mod json_patch;
pub(crate) mod shape;
pub(crate) mod strategic;

//! networking.k8s.io/v1 IngressClass.

use super::read::{Field, Read, Reader};
use super::syntax;
use crate::model::object::{IngressClass, Meta};

const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

pub(super) fn ingress_class(read: &mut Reader<'_>, root: Field<'_>, meta: &Meta) -> Read<IngressClass> {
    read.mapping(root, &["apiVersion", "kind", "metadata", "spec"])?;
    let spec = root.get("spec");
    read.mapping(spec, &["controller", "parameters"])?;
    let controller = read.name(spec.get("controller"), syntax::domain_path)?.into();
    let is_default = meta.annotations.get(DEFAULT_ANNOTATION).is_some_and(|text| text == "true");
    Ok(IngressClass { controller, is_default })
}

//! Where the controller works: in all namespaces, or in some.

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use std::collections::BTreeSet;

/// One scope for each namespace that is named; `None`, for all of them, where none is.
pub(crate) fn scopes(watch_namespaces: &[String]) -> BTreeSet<Option<&str>> {
    match watch_namespaces {
        [] => [None].into(),
        names => names.iter().map(|name| Some(name.trim())).collect(),
    }
}

/// The objects of a kind in a scope.
pub(crate) fn api<K>(client: &Client, scope: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

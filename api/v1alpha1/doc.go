// Package v1alpha1 is Hyperkeep's API: what people apply and what is recorded for them.
//
// Conditions are the contract. Long-lived kinds have Ready, runs have Succeeded; both use Reconciling and Stalled as kstatus reads them, so
// that kubectl wait, Flux and Argo CD agree. The phase that some kinds print is derived from the conditions and nothing branches on it.
//
// +kubebuilder:object:generate=true
// +groupName=hyperkeep.io
package v1alpha1

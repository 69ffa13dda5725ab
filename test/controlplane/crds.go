package controlplane

import (
	"context"
	"fmt"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// installCRDs applies the CustomResourceDefinitions in files or folders and waits until the API
// server serves every one that it has.
func (c *ControlPlane) installCRDs(ctx context.Context, paths []string) error {
	for _, path := range paths {
		if _, err := c.Kubectl().Run(ctx, "apply", "--server-side", "-f", path); err != nil {
			return err
		}
	}
	clients, err := apiextensions.NewForConfig(c.config)
	if err != nil {
		return err
	}
	crds, err := clients.ApiextensionsV1().CustomResourceDefinitions().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, crd := range crds.Items {
		err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, startTimeout, true,
			func(context.Context) (bool, error) { return isServed(clients, &crd), nil })
		if err != nil {
			return fmt.Errorf("wait until %s is served: %w", crd.Name, err)
		}
	}
	return nil
}

// isServed reports whether each version that crd serves is discoverable, which is what clients go by.
// The API server lists a resource only when its definition is established.
func isServed(clients apiextensions.Interface, crd *apiextensionsv1.CustomResourceDefinition) bool {
	for _, version := range crd.Spec.Versions {
		if !version.Served {
			continue
		}
		list, err := clients.Discovery().ServerResourcesForGroupVersion(crd.Spec.Group + "/" + version.Name)
		if err != nil || !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool {
			return r.Name == crd.Spec.Names.Plural
		}) {
			return false
		}
	}
	return true
}

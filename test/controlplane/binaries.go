package controlplane

import (
	"fmt"
	"os"
	"path/filepath"
)

// binariesVariable names the folder with the binaries; the name is envtest's, which tools know.
const binariesVariable = "KUBEBUILDER_ASSETS"

// MissingBinaryError means that a binary of the control plane is not there.
type MissingBinaryError struct {
	// Binary is the name of the missing program.
	Binary string
	// Folder is where it was looked for; empty when KUBEBUILDER_ASSETS is not set.
	Folder string
}

// Error says how to get the binaries.
func (e *MissingBinaryError) Error() string {
	const remedy = "use a make target, or set it in the top folder of the checkout with\n\n" +
		"    export KUBEBUILDER_ASSETS=\"$(hack/controlplane.sh --with-controller-manager)\"\n"
	if e.Folder == "" {
		return binariesVariable + " does not say where the Kubernetes binaries are: " + remedy
	}
	return fmt.Sprintf("%s is %s, where there is no %s: %s", binariesVariable, e.Folder, e.Binary, remedy)
}

// binaries are the paths of the programs. controllerManager is empty when it is not wanted.
type binaries struct {
	etcd, apiServer, kubectl, controllerManager string
}

// findBinaries returns a *MissingBinaryError when one is missing.
func findBinaries(withControllerManager bool) (binaries, error) {
	folder := os.Getenv(binariesVariable)
	found := binaries{
		etcd:      filepath.Join(folder, "etcd"),
		apiServer: filepath.Join(folder, "kube-apiserver"),
		kubectl:   filepath.Join(folder, "kubectl"),
	}
	wanted := []string{found.etcd, found.apiServer, found.kubectl}
	if withControllerManager {
		found.controllerManager = filepath.Join(folder, "kube-controller-manager")
		wanted = append(wanted, found.controllerManager)
	}
	for _, path := range wanted {
		if _, err := os.Stat(path); folder == "" || err != nil {
			return binaries{}, &MissingBinaryError{Binary: filepath.Base(path), Folder: folder}
		}
	}
	return found, nil
}

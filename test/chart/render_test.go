// Package chart tests what the Helm chart and config/ install: that both give the same, and that what they give away has a reason.
package chart

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const (
	root  = "../.."
	chart = root + "/charts/hyperkeep"
)

// helm runs the Helm that is pinned with the other tools.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	command := append([]string{"tool", "-modfile=" + root + "/hack/tools/go.mod", "helm"}, args...)
	cmd := exec.CommandContext(t.Context(), "go", command...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), errors.New(stderr.String())
	}
	return stdout.String(), nil
}

// template renders the chart as an installation into the namespace that config/ uses.
func template(t *testing.T, set ...string) (objects, error) {
	t.Helper()
	args := []string{"template", "hyperkeep", chart, "--namespace", "hyperkeep-system", "--kube-version", "1.30.0"}
	for _, value := range set {
		args = append(args, "--set", value)
	}
	text, err := helm(t, args...)
	if err != nil {
		return nil, err
	}
	return parse(t, strings.NewReader(text)), nil
}

func rendered(t *testing.T, set ...string) objects {
	t.Helper()
	found, err := template(t, set...)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// configured reads the manifests below a folder of config/. The kustomizations there put them together and change none.
func configured(t *testing.T, folders ...string) objects {
	t.Helper()
	all := objects{}
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(root, "config", folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || entry.Name() == "kustomization.yaml" {
				return err
			}
			file, err := os.Open(path)
			if err != nil {
				return err
			}
			defer file.Close()
			for key, object := range parse(t, file) {
				all[key] = object
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// objects by kind, namespace and name.
type objects map[string]*unstructured.Unstructured

func parse(t *testing.T, reader io.Reader) objects {
	t.Helper()
	found := objects{}
	decoder := yaml.NewYAMLOrJSONDecoder(reader, 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) == 0 {
			continue
		}
		key := strings.Join([]string{object.GetKind(), object.GetNamespace(), object.GetName()}, "/")
		if found[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		found[key] = object
	}
}

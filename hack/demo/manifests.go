package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// namespace is where the demo's user works.
const namespace = "shop"

// hostsManifest registers the hosts. virtualMachineNamespace is where their virtual machines appear.
const hostsManifest = `apiVersion: hyperkeep.io/v1alpha1
kind: HyperVHost
metadata:
  name: hv01
spec:
  virtualMachineNamespace: shop
---
apiVersion: hyperkeep.io/v1alpha1
kind: HyperVHost
metadata:
  name: hv02
spec:
  virtualMachineNamespace: shop
`

// repositoryManifest has one argument for the namespace of the Secret, and one for the path.
const repositoryManifest = `apiVersion: v1
kind: Secret
metadata:
  name: main-repository
  namespace: %s
stringData:
  # It encrypts every image. Keep a copy outside of the cluster.
  password: only-for-this-demo
---
apiVersion: hyperkeep.io/v1alpha1
kind: BackupRepository
metadata:
  name: main
spec:
  location:
    filesystem:
      path: %s
  secretName: main-repository
  allowedNamespaces: [shop]
`

// policyManifest has one argument: the token. A new one starts a run at once.
const policyManifest = `apiVersion: hyperkeep.io/v1alpha1
kind: BackupPolicy
metadata:
  name: nightly
  namespace: shop
spec:
  selection:
    all: true
  schedules:
  - name: night
    cron: "0 2 * * *"
    timeZone: Europe/Berlin
  repositoryRef:
    name: main
  consistency:
    level: ApplicationThenCrash
  retention:
    keepLast: 7
    maxAge: 30d
  objectives:
    rpo: 26h
  runNow:
    token: %s
`

// restoreManifest restores an image as a new machine: its arguments are the name of the restore, the source in one line, and the new machine's name.
const restoreManifest = `apiVersion: hyperkeep.io/v1alpha1
kind: RestoreJob
metadata:
  name: %s
  namespace: shop
spec:
  source:
    %s
  target:
    name: %s
`

// writeManifest writes a manifest for a person to read again, and returns its path.
func (d *demo) writeManifest(name, text string, args ...any) (string, error) {
	if len(args) > 0 {
		text = fmt.Sprintf(text, args...)
	}
	path := filepath.Join(d.dir, "manifests", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// apply writes a manifest and applies it with kubectl.
func (d *demo) apply(name, text string, args ...any) error {
	path, err := d.writeManifest(name, text, args...)
	if err != nil {
		return err
	}
	return d.console.run(d.ctx, "apply", "-f", path)
}

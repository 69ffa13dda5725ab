package emulator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"
)

// edit changes the VM's definition as WMI asks for it: vm.yaml is rewritten, then taken up as if a person had changed it. The caller holds op.
func (v *vm) edit(ctx context.Context, change func(*vmConfig) error) error {
	config, err := v.config.clone()
	if err != nil {
		return err
	}
	if err := change(&config); err != nil {
		return err
	}
	if err := config.check(); err != nil {
		return err
	}
	old, err := os.ReadFile(filepath.Join(v.dir, "vm.yaml"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := updateYAML(old, v.config, config)
	if err != nil {
		return fmt.Errorf("rewrite vm.yaml: %w", err)
	}
	if err := writeFile(filepath.Join(v.dir, "vm.yaml"), text); err != nil {
		return err
	}
	stamp, err := v.readStamp()
	if err != nil {
		return err
	}
	if err := v.adopt(ctx, config); err != nil {
		v.fail(err)
		return err
	}
	v.host.mu.Lock()
	defer v.host.mu.Unlock()
	v.stamp, v.problem = stamp, nil
	return nil
}

// edit changes the definition that the settings are: the VM's, or that of a planned checkpoint. The caller holds op.
func (s *settings) edit(ctx context.Context, change func(*vmConfig) error) error {
	if s.snapshot == nil {
		return s.vm.edit(ctx, change)
	}
	config, err := s.snapshot.Config.clone()
	if err == nil {
		err = change(&config)
	}
	if err == nil {
		err = config.check()
	}
	if err != nil {
		return err
	}
	return s.vm.commit(func(*vmRecord) { s.snapshot.Config = config })
}

// clone copies a definition with all that it points to.
func (c vmConfig) clone() (vmConfig, error) {
	var out vmConfig
	text, err := yaml.Marshal(c)
	if err == nil {
		err = yaml.Unmarshal(text, &out)
	}
	return out, err
}

// updateYAML changes the fields of a vm.yaml in which two definitions differ, and keeps everything else as people wrote it, comments too.
func updateYAML(text []byte, before, after vmConfig) ([]byte, error) {
	var file, old, next yaml.Node
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil, err
	}
	if err := errors.Join(old.Encode(before), next.Encode(after)); err != nil {
		return nil, err
	}
	if len(file.Content) == 0 || file.Content[0].Kind != yaml.MappingNode {
		return yaml.Marshal(after)
	}
	target := file.Content[0]
	for _, key := range keysOf(&old, &next) {
		was, is := field(&old, key), field(&next, key)
		if same, err := sameNode(was, is); err != nil || same {
			if err != nil {
				return nil, err
			}
			continue
		}
		setField(target, key, is)
	}
	return yaml.Marshal(&file)
}

func keysOf(nodes ...*yaml.Node) []string {
	var keys []string
	for _, n := range nodes {
		for i := 0; i < len(n.Content); i += 2 {
			if key := n.Content[i].Value; !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

func field(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// setField sets a field of a mapping, or removes it when value is nil.
func setField(n *yaml.Node, key string, value *yaml.Node) {
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value != key {
			continue
		}
		if value == nil {
			n.Content = slices.Delete(n.Content, i, i+2)
		} else {
			n.Content[i+1] = value
		}
		return
	}
	if value != nil {
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, value)
	}
}

func sameNode(a, b *yaml.Node) (bool, error) {
	if a == nil || b == nil {
		return a == b, nil
	}
	x, err := yaml.Marshal(a)
	if err != nil {
		return false, err
	}
	y, err := yaml.Marshal(b)
	return string(x) == string(y), err
}

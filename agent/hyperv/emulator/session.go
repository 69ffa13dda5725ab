package emulator

import (
	"context"
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wql"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// session is a connection to one namespace, in process.
type session struct {
	host      *Host
	namespace string
}

var _ wmi.Session = (*session)(nil)

// begin checks what every call needs, and takes up what people changed in the folder.
func (s *session) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.host.schema.HasNamespace(s.namespace) || (s.ofCluster() && !s.host.config.FailoverClustering && s.host.cluster == nil) {
		return fmt.Errorf("%w: %s", wmi.ErrInvalidNamespace, s.namespace)
	}
	if err := s.host.faults.session(); err != nil {
		return err
	}
	if s.host.ctx.Err() != nil {
		return wmi.ErrDisconnected
	}
	s.host.scan()
	return nil
}

func (s *session) ofCluster() bool { return strings.EqualFold(s.namespace, wmi.NamespaceCluster) }

// beginObjects is begin for calls that are about objects, which the provider of the namespace has: that of a cluster has none to tell of without its service.
func (s *session) beginObjects(ctx context.Context) error {
	if err := s.begin(ctx); err != nil || !s.ofCluster() {
		return err
	}
	s.host.mu.Lock()
	defer s.host.mu.Unlock()
	if !s.host.services[clusterService] {
		return fmt.Errorf("%w: the service %s does not run", wmi.ErrDisconnected, clusterService)
	}
	return nil
}

// Query implements wmi.Session.
func (s *session) Query(ctx context.Context, text string) ([]wmi.Instance, error) {
	if err := s.beginObjects(ctx); err != nil {
		return nil, err
	}
	q, err := wql.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", wmi.ErrInvalidQuery, text, err)
	}
	if q.Within != 0 {
		return nil, fmt.Errorf("%w: %s: only an event query has WITHIN", wmi.ErrInvalidQuery, text)
	}
	classes := s.host.schema.Derived(s.namespace, q.Class)
	if len(classes) == 0 {
		return nil, fmt.Errorf("%w: %s", wmi.ErrInvalidClass, q.Class)
	}
	if classes[0].Association {
		return nil, fmt.Errorf("%w: %s: the emulated host follows associations, it does not list them", wmi.ErrInvalidQuery, text)
	}
	for _, name := range q.Properties() {
		if !hasProperty(classes, name) {
			return nil, fmt.Errorf("%w: class %s has no property %s", wmi.ErrInvalidQuery, q.Class, name)
		}
	}
	s.host.mu.Lock()
	defer s.host.mu.Unlock()
	out := []wmi.Instance{}
	for _, class := range classes {
		for _, o := range s.host.objects(class.Name) {
			instance, err := class.Instance(s.host.config.Name, o.properties)
			if err != nil {
				return nil, err
			}
			match, err := q.Matches(func(name string) any {
				exact, _, _ := class.Property(name)
				return instance.Properties[exact]
			})
			if err != nil {
				return nil, fmt.Errorf("%w: %s: %w", wmi.ErrInvalidQuery, text, err)
			}
			if match {
				out = append(out, project(instance, q.Columns))
			}
		}
	}
	return out, nil
}

func hasProperty(classes []*schema.Class, name string) bool {
	for _, c := range classes {
		if _, _, ok := c.Property(name); ok {
			return true
		}
	}
	return false
}

// project keeps the selected properties.
func project(i wmi.Instance, columns []string) wmi.Instance {
	if len(columns) == 0 {
		return i
	}
	kept := make(map[string]any, len(columns))
	for name, value := range i.Properties {
		for _, c := range columns {
			if strings.EqualFold(c, name) {
				kept[name] = value
			}
		}
	}
	i.Properties = kept
	return i
}

// Get implements wmi.Session.
func (s *session) Get(ctx context.Context, path string) (wmi.Instance, error) {
	if err := s.beginObjects(ctx); err != nil {
		return wmi.Instance{}, err
	}
	s.host.mu.Lock()
	defer s.host.mu.Unlock()
	_, instance, err := s.find(path)
	return instance, err
}

// find returns the object at a path of this namespace. The caller holds Host.mu.
func (s *session) find(path string) (object, wmi.Instance, error) {
	class, ok := s.host.schema.Class(s.namespace, schema.PathClass(path))
	if !ok {
		return object{}, wmi.Instance{}, fmt.Errorf("%w: %s", wmi.ErrInvalidClass, path)
	}
	for _, o := range s.host.objects(class.Name) {
		if schema.SamePath(class.Path(s.host.config.Name, o.properties), path) {
			instance, err := class.Instance(s.host.config.Name, o.properties)
			return o, instance, err
		}
	}
	return object{}, wmi.Instance{}, fmt.Errorf("%w: %s", wmi.ErrNotFound, path)
}

// Associators implements wmi.Session.
func (s *session) Associators(ctx context.Context, path, assocClass, resultClass string) ([]wmi.Instance, error) {
	if err := s.beginObjects(ctx); err != nil {
		return nil, err
	}
	association, ok := s.host.schema.Class(s.namespace, assocClass)
	if !ok || associations[association.Name] == nil {
		return nil, fmt.Errorf("%w: %s", wmi.ErrInvalidClass, assocClass)
	}
	classes := s.host.schema.Derived(s.namespace, resultClass)
	if len(classes) == 0 {
		return nil, fmt.Errorf("%w: %s", wmi.ErrInvalidClass, resultClass)
	}
	s.host.mu.Lock()
	defer s.host.mu.Unlock()
	source, _, err := s.find(path)
	if err != nil {
		return nil, err
	}
	out := []wmi.Instance{}
	for _, class := range classes {
		for _, o := range s.host.objects(class.Name) {
			if !associations[association.Name](s.host, source, o) && !associations[association.Name](s.host, o, source) {
				continue
			}
			instance, err := class.Instance(s.host.config.Name, o.properties)
			if err != nil {
				return nil, err
			}
			out = append(out, instance)
		}
	}
	return out, nil
}

// Invoke implements wmi.Session.
func (s *session) Invoke(ctx context.Context, path, method string, in wmi.Params) (wmi.Result, error) {
	if err := s.beginObjects(ctx); err != nil {
		return wmi.Result{}, err
	}
	s.host.mu.Lock()
	target, _, err := s.find(path)
	s.host.mu.Unlock()
	if err != nil {
		return wmi.Result{}, err
	}
	class, _ := s.host.schema.Class(s.namespace, target.class)
	m, ok := class.Methods[method]
	run := methods[class.Name+"."+method]
	if !ok || run == nil {
		return wmi.Result{}, fmt.Errorf("%w: %s.%s", wmi.ErrInvalidMethod, class.Name, method)
	}
	if err := s.host.schema.CheckParams(class, m, in); err != nil {
		return wmi.Result{}, err
	}
	result := wmi.Result{ReturnValue: s.host.faults.refuse(method)}
	if result.ReturnValue == 0 {
		result, err = run(call{host: s.host, target: target, method: method, in: in})
	}
	if err == nil {
		s.host.usage.Count(class.Name+"."+method, result.ReturnValue)
	}
	return result, err
}

// Close implements wmi.Session.
func (s *session) Close() error { return nil }

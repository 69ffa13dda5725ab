package shim

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// codes are those of the errors of a session.
var codes = []struct {
	err  error
	code uint32
}{
	{wmi.ErrDisconnected, hrUnavailable}, {wmi.ErrNotFound, hrNotFound}, {wmi.ErrInvalidNamespace, hrNamespace}, {wmi.ErrInvalidClass, hrClass},
	{wmi.ErrInvalidQuery, hrQuery}, {wmi.ErrInvalidMethod, hrMethod}, {wmi.ErrInvalidParameter, hrMethodParameter}, {wmi.ErrAccessDenied, hrAccessDenied},
}

// text returns an argument that is text; "" when it was left out.
func text(args []any, i int) (string, error) {
	if i >= len(args) {
		return "", nil
	}
	switch x := args[i].(type) {
	case string:
		return x, nil
	case nil, Missing:
		return "", nil
	}
	return "", fail(hrParameterType, "argument %d is a %T", i, args[i])
}

// texts returns the first n arguments.
func texts(args []any, n int) ([]string, error) {
	out := make([]string, n)
	for i := range out {
		var err error
		if out[i], err = text(args, i); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// locator is SWbemLocator.
type locator struct{ p *automationProcess }

func (l *locator) kind() kind { return kindLocator }

func (l *locator) members() members {
	return members{asMethod: {"ConnectServer": l.connect}}
}

func (l *locator) connect(ctx context.Context, args []any) (any, error) {
	all, err := texts(args, 4)
	if err != nil {
		return nil, err
	}
	server, namespace, user, password := all[0], strings.ReplaceAll(all[1], "/", `\`), all[2], all[3]
	switch {
	case server != "" && server != ".":
		return nil, fail(hrUnavailable, "there is no server %s", server)
	case user != "" || password != "":
		return nil, fail(hrCredentials, "a connection to this machine takes no user")
	}
	s := &connection{p: l.p, namespace: namespace, session: l.p.host.Session(namespace), security: &security{}}
	// What a connection itself tells is told by any call: the class need not be there.
	if _, err := s.session.Query(ctx, "SELECT * FROM __Namespace"); err != nil && !errors.Is(err, wmi.ErrInvalidClass) {
		return nil, err
	}
	return s, nil
}

// security is SWbemSecurity.
type security struct {
	mu                            sync.Mutex
	authentication, impersonation int32
}

// packetPrivacy is wbemAuthenticationLevelPktPrivacy, without which the cluster's provider refuses every call.
const packetPrivacy = 6

func (s *security) kind() kind { return kindSecurity }

func (s *security) members() members {
	return members{
		asGet: {"AuthenticationLevel": s.read(&s.authentication), "ImpersonationLevel": s.read(&s.impersonation)},
		asPut: {"AuthenticationLevel": s.write(&s.authentication, packetPrivacy), "ImpersonationLevel": s.write(&s.impersonation, 4)},
	}
}

func (s *security) read(level *int32) member {
	return func(context.Context, []any) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return *level, nil
	}
}

func (s *security) write(level *int32, highest int64) member {
	return func(_ context.Context, args []any) (any, error) {
		if len(args) != 1 {
			return nil, fail(hrParameterCount, "a level is one value")
		}
		n, ok := integer(args[0])
		if !ok {
			return nil, fail(hrParameterType, "a level is no %T", args[0])
		}
		if n < 0 || n > highest {
			return nil, fail(hrParameter, "there is no level %d", n)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		*level = int32(n)
		return Missing{}, nil
	}
}

func (s *security) private() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.authentication == packetPrivacy
}

// connection is SWbemServices: a connection to a namespace.
type connection struct {
	p         *automationProcess
	namespace string
	session   wmi.Session
	security  *security
}

func (s *connection) kind() kind { return kindServices }

func (s *connection) members() members {
	return members{
		asGet: {"Security_": func(context.Context, []any) (any, error) { return s.security, nil }},
		asMethod: {
			"Get": s.get, "ExecNotificationQuery": s.watch,
			// The query runs when its result is looked at: WMI tells most errors only then.
			"ExecQuery": func(_ context.Context, args []any) (any, error) {
				query, err := text(args, 0)
				return s.found(func(ctx context.Context) ([]wmi.Instance, error) { return s.session.Query(ctx, query) }), err
			},
		},
	}
}

// allowed refuses calls that the namespace's provider wants encrypted.
func (s *connection) allowed() error {
	if strings.EqualFold(s.namespace, wmi.NamespaceCluster) && !s.security.private() {
		return fail(hrAccessDenied, "the cluster's provider answers only encrypted calls")
	}
	return nil
}

// get returns the instance at a path, or the class of a name.
func (s *connection) get(ctx context.Context, args []any) (any, error) {
	path, err := text(args, 0)
	if err != nil {
		return nil, err
	}
	if err := s.allowed(); err != nil {
		return nil, err
	}
	if !strings.Contains(path, "=") { // no key
		class, ok := s.p.host.Schema().Class(s.namespace, path)
		if !ok {
			return nil, fail(hrNotFound, "there is no class %s", path)
		}
		return definition(s, class), nil
	}
	instance, err := s.session.Get(ctx, path)
	if err != nil {
		return nil, err
	}
	return s.instance(instance), nil
}

// instance makes an object of an instance.
func (s *connection) instance(i wmi.Instance) *wmiObject {
	class, _ := s.p.host.Schema().Class(s.namespace, i.Class)
	types := map[string]schema.Type{}
	for name := range i.Properties {
		types[name] = class.Properties[name]
	}
	return &wmiObject{services: s, class: class, name: i.Class, path: i.Path, types: types, values: i.Properties}
}

// found is the instances that find returns.
func (s *connection) found(find func(context.Context) ([]wmi.Instance, error)) automation {
	return &collection{of: kindObjects, list: func(ctx context.Context) ([]automation, error) {
		if err := s.allowed(); err != nil {
			return nil, err
		}
		all, err := find(ctx)
		out := make([]automation, 0, len(all))
		for _, i := range all {
			out = append(out, s.instance(i))
		}
		return out, err
	}}
}

// collection is SWbemObjectSet, SWbemPropertySet and SWbemMethodSet.
type collection struct {
	of   kind
	list func(context.Context) ([]automation, error)
	// item finds an item by its name; nil where there are no names.
	item func(name string) (automation, bool)
}

func (c *collection) kind() kind { return c.of }

func (c *collection) members() members {
	m := members{asGet: {
		"_NewEnum": func(context.Context, []any) (any, error) { return &enumerator{list: c.list}, nil },
		"Count": func(ctx context.Context, _ []any) (any, error) {
			all, err := c.list(ctx)
			return int32(len(all)), err
		},
	}}
	if c.item != nil {
		m[asMethod] = map[string]member{"Item": func(_ context.Context, args []any) (any, error) {
			name, err := text(args, 0)
			if err != nil {
				return nil, err
			}
			found, ok := c.item(name)
			if !ok {
				return nil, fail(hrNotFound, "there is no %s", name)
			}
			return found, nil
		}}
	}
	return m
}

// enumerator is the IEnumVARIANT of a collection.
type enumerator struct {
	list func(context.Context) ([]automation, error)

	mu     sync.Mutex
	listed bool
	left   []automation
}

func (e *enumerator) kind() kind       { return kindEnumerator }
func (e *enumerator) members() members { return nil }

func (e *enumerator) next(ctx context.Context) (automation, bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.listed {
		var err error
		if e.left, err = e.list(ctx); err != nil {
			return nil, false, err
		}
		e.listed = true
	}
	if len(e.left) == 0 {
		return nil, false, nil
	}
	first := e.left[0]
	e.left = e.left[1:]
	return first, true, nil
}

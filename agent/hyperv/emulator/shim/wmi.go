package shim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
)

// HRESULTs (winerror.h, wbemcli.h).
const (
	hrOK              = 0
	hrNoInterface     = 0x80004002 // E_NOINTERFACE
	hrNoClass         = 0x80040111 // CLASS_E_CLASSNOTAVAILABLE
	hrNoMember        = 0x80020003 // DISP_E_MEMBERNOTFOUND
	hrNoName          = 0x80020006 // DISP_E_UNKNOWNNAME
	hrException       = 0x80020009 // DISP_E_EXCEPTION
	hrParameterCount  = 0x8002000E // DISP_E_BADPARAMCOUNT
	hrParameterType   = 0x80020005 // DISP_E_TYPEMISMATCH
	hrUnexpected      = 0x8000FFFF // E_UNEXPECTED
	hrUnavailable     = 0x800706BA // RPC_S_SERVER_UNAVAILABLE
	hrDisconnected    = 0x80010108 // RPC_E_DISCONNECTED
	hrTimedOut        = 0x80043001 // wbemErrTimedout
	hrFailed          = 0x80041001 // WBEM_E_FAILED
	hrNotFound        = 0x80041002 // WBEM_E_NOT_FOUND
	hrAccessDenied    = 0x80041003 // WBEM_E_ACCESS_DENIED
	hrTypeMismatch    = 0x80041005 // WBEM_E_TYPE_MISMATCH
	hrParameter       = 0x80041008 // WBEM_E_INVALID_PARAMETER
	hrNamespace       = 0x8004100E // WBEM_E_INVALID_NAMESPACE
	hrClass           = 0x80041010 // WBEM_E_INVALID_CLASS
	hrQuery           = 0x80041017 // WBEM_E_INVALID_QUERY
	hrOutOfRange      = 0x8004102B // WBEM_E_VALUE_OUT_OF_RANGE
	hrMethod          = 0x8004102E // WBEM_E_INVALID_METHOD
	hrMethodParameter = 0x8004102F // WBEM_E_INVALID_METHOD_PARAMETERS
	hrCredentials     = 0x80041064 // WBEM_E_LOCAL_CREDENTIALS
)

// Class and interface ids.
const (
	classLocator        = "{76A64158-CB41-11D1-8B02-00600806D9B6}" // SWbemLocator
	interfaceLocator    = "{76A6415B-CB41-11D1-8B02-00600806D9B6}" // ISWbemLocator
	interfaceEnumerator = "{00020404-0000-0000-C000-000000000046}" // IEnumVARIANT
)

// enumeratorID is DISPID_NEWENUM.
const enumeratorID = -4

// access is how a member is used: DISPATCH_METHOD, DISPATCH_PROPERTYGET or DISPATCH_PROPERTYPUT.
type access uint32

const (
	asMethod access = 1
	asGet    access = 2
	asPut    access = 4
)

// kind is what all objects have in common whose members have the same ids.
type kind uint16

const (
	kindLocator kind = iota + 1
	kindSecurity
	kindServices
	kindObjects
	kindEnumerator
	kindObject
	kindProperties
	kindProperty
	kindMethods
	kindMethod
	kindEvents
)

// member runs a member. What it returns is a value of the protocol, or an automation object.
type member func(ctx context.Context, args []any) (any, error)

// members are those of an object, by name and access.
type members map[access]map[string]member

// automation is an automation object.
type automation interface {
	kind() kind
	members() members
}

// constant is an object that has members which never change.
type constant interface{ constants() map[string]any }

// dynamic is an object with members of its own besides those of its kind, as the properties of an instance are.
type dynamic interface {
	member(name string) (members, bool)
}

// automationProcess is the objects of one program. It is safe for concurrent use.
type automationProcess struct {
	host *emulator.Host

	mu      sync.Mutex
	last    uint64
	objects map[Object]held
	names   map[string]int32 // ids of members, by names in lower case
	byID    map[int32]string
}

// held is an object and the start of the service in which it was made.
type held struct {
	automation
	restarts int
}

// newAutomation numbers objects from a number that no other process began with: a program may still release those of a host that was started anew.
func newAutomation(host *emulator.Host) process {
	const space = 1 << 47 // below the bits of the kind
	return &automationProcess{
		host: host, last: uint64(time.Now().UnixMicro()) % space, objects: map[Object]held{}, names: map[string]int32{"_newenum": enumeratorID}, byID: map[int32]string{enumeratorID: "_NewEnum"},
	}
}

// exit implements process.
func (p *automationProcess) exit() {
	p.host.Usage().Leak(len(p.objects))
	for _, o := range p.objects {
		end(o.automation)
	}
}

// end gives back what an object held outside of its process.
func end(a automation) {
	if e, ok := a.(*eventSource); ok {
		e.end()
	}
}

// call implements process. The first argument of every function is the objects that were released.
func (p *automationProcess) call(ctx context.Context, function string, args []any) (uint32, []any) {
	if len(args) == 0 {
		return hrUnexpected, nil
	}
	released, _ := args[0].(List)
	p.release(released.Items)
	switch args = args[1:]; function {
	case "release":
		return hrOK, nil
	case "create":
		return p.create(args)
	case "query":
		return p.query(args)
	case "names":
		return p.name(args)
	case "invoke":
		return p.invoke(ctx, args)
	case "next":
		return p.next(ctx, args)
	}
	return hrUnexpected, nil
}

func (p *automationProcess) release(ids []any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		number, _ := id.(uint64)
		if o, known := p.objects[Object(number)]; known {
			end(o.automation)
			delete(p.objects, Object(number))
			p.host.Usage().Hold(-1)
		}
	}
}

// hold gives an object a number.
func (p *automationProcess) hold(a automation) Object {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	id := Object(uint64(a.kind())<<48 | p.last)
	p.objects[id] = held{a, p.host.Faults().WMIRestarts()}
	p.host.Usage().Hold(1)
	return id
}

// object finds the object that is the first argument. Those of a service that has started anew since are dead, but for the locator, which
// lives in the program itself.
func (p *automationProcess) object(args []any) (automation, uint32) {
	if len(args) == 0 {
		return nil, hrUnexpected
	}
	id, _ := args[0].(Object)
	p.mu.Lock()
	defer p.mu.Unlock()
	h, known := p.objects[id]
	switch {
	case !known:
		return nil, hrDisconnected
	case h.kind() != kindLocator && h.restarts != p.host.Faults().WMIRestarts():
		return nil, hrUnavailable
	}
	return h.automation, hrOK
}

func (p *automationProcess) create(args []any) (uint32, []any) {
	if len(args) != 1 || args[0] != classLocator {
		return hrNoClass, nil
	}
	return hrOK, []any{p.hold(&locator{p})}
}

func (p *automationProcess) query(args []any) (uint32, []any) {
	o, status := p.object(args)
	if status != hrOK {
		return status, nil
	}
	interfaces := map[kind]string{kindLocator: interfaceLocator, kindEnumerator: interfaceEnumerator}
	if len(args) != 2 || args[1] != interfaces[o.kind()] {
		return hrNoInterface, nil
	}
	return hrOK, nil
}

// name returns the id of a member, and whether all objects of the kind have it.
func (p *automationProcess) name(args []any) (uint32, []any) {
	o, status := p.object(args)
	if status != hrOK {
		return status, nil
	}
	if len(args) != 2 {
		return hrUnexpected, nil
	}
	name, _ := args[1].(string)
	common := o.members().has(name)
	if !common {
		if d, ok := o.(dynamic); !ok {
			return hrNoName, nil
		} else if _, known := d.member(name); !known {
			return hrNoName, nil
		}
	}
	return hrOK, []any{uint32(p.id(name)), common}
}

// id is the number of a name.
func (p *automationProcess) id(name string) int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, known := p.names[strings.ToLower(name)]
	if !known {
		id = int32(len(p.names) + 1)
		p.names[strings.ToLower(name)], p.byID[id] = id, name
	}
	return id
}

func (m members) has(name string) bool {
	for _, byName := range m {
		for n := range byName {
			if strings.EqualFold(n, name) {
				return true
			}
		}
	}
	return false
}

// find returns a member. Programs ask for some properties as if they were methods.
func (m members) find(name string, how access) member {
	for _, a := range []access{asGet, asPut, asMethod} {
		for n, f := range m[a] {
			if how&a != 0 && strings.EqualFold(n, name) {
				return f
			}
		}
	}
	return nil
}

func (p *automationProcess) invoke(ctx context.Context, args []any) (uint32, []any) {
	o, status := p.object(args)
	if status != hrOK {
		return status, nil
	}
	if len(args) < 3 {
		return hrUnexpected, nil
	}
	id, _ := args[1].(int32)
	how, _ := args[2].(uint32)
	p.mu.Lock()
	name := p.byID[id]
	p.mu.Unlock()
	run := o.members().find(name, access(how))
	if d, ok := o.(dynamic); run == nil && ok {
		own, _ := d.member(name)
		run = own.find(name, access(how))
	}
	if run == nil {
		return hrNoMember, nil
	}
	result, err := run(ctx, args[3:])
	if err != nil {
		return exception(name, err)
	}
	return hrOK, []any{p.give(result)}
}

// give makes a value of the protocol of a result.
func (p *automationProcess) give(result any) any {
	if a, ok := result.(automation); ok {
		return p.hold(a)
	}
	return result
}

// next returns the next items of an enumeration. Its errors are bare codes: an enumeration knows no exceptions.
func (p *automationProcess) next(ctx context.Context, args []any) (uint32, []any) {
	o, status := p.object(args)
	if status != hrOK {
		return status, nil
	}
	e, ok := o.(*enumerator)
	if !ok || len(args) != 2 {
		return hrNoInterface, nil
	}
	wanted, _ := args[1].(uint32)
	var out []any
	for uint32(len(out)) < wanted {
		item, more, err := e.next(ctx)
		if err != nil {
			return hresult(err), nil
		}
		if !more {
			break
		}
		out = append(out, p.item(item))
	}
	return hrOK, out
}

// item is an item of an enumeration, with what never changes of it.
func (p *automationProcess) item(a automation) any {
	c, ok := a.(constant)
	if !ok {
		return p.hold(a)
	}
	out := List{Of: Variant, Items: []any{p.hold(a)}}
	for name, value := range c.constants() {
		out.Items = append(out.Items, uint32(p.id(name)), value)
	}
	return out
}

// failure is an error that has a code of its own.
type failure struct {
	code uint32
	text string
}

func (f *failure) Error() string { return fmt.Sprintf("%s (%#x)", f.text, f.code) }

func fail(code uint32, format string, args ...any) error {
	return &failure{code, fmt.Sprintf(format, args...)}
}

// exception is how an automation object tells an error: most as an exception, those of the call itself bare.
func exception(name string, err error) (uint32, []any) {
	switch code := hresult(err); code {
	case hrNoMember, hrParameterCount, hrParameterType:
		return code, nil
	default:
		return hrException, []any{code, name + ": " + err.Error()}
	}
}

// hresult is the code of an error.
func hresult(err error) uint32 {
	var f *failure
	if errors.As(err, &f) {
		return f.code
	}
	for _, known := range codes {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	return hrFailed
}

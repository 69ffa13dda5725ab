package shim

import (
	"context"
	"reflect"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi/wmitest"
)

// program calls automation objects as the DLL does.
type program struct {
	*testing.T
	host *emulator.Host
	p    process
}

func newProgram(t *testing.T) *program {
	t.Helper()
	dir := t.TempDir()
	wmitest.Prepare(t, dir)
	host, err := emulator.Open(dir, emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	return &program{t, host, newAutomation(host)}
}

func (p *program) call(function string, args ...any) (uint32, []any) {
	return p.p.call(context.Background(), function, append([]any{List{Of: Uint64}}, args...))
}

// try uses a member and returns its value, or the code of the call and that of the exception.
func (p *program) try(o any, how access, name string, args ...any) (any, uint32, uint32) {
	status, id := p.call("names", o, name)
	if status != hrOK {
		return nil, status, 0
	}
	status, out := p.call("invoke", append([]any{o, int32(id[0].(uint32)), uint32(how)}, args...)...)
	switch {
	case status == hrException:
		return nil, status, out[0].(uint32)
	case status != hrOK:
		return nil, status, 0
	}
	return out[0], hrOK, 0
}

func (p *program) must(o any, how access, name string, args ...any) any {
	p.Helper()
	value, status, code := p.try(o, how, name, args...)
	if status != hrOK {
		p.Fatalf("%s: %#x %#x", name, status, code)
	}
	return value
}

func (p *program) locator() any {
	p.Helper()
	status, out := p.call("create", classLocator)
	if status != hrOK {
		p.Fatalf("create: %#x", status)
	}
	return out[0]
}

func (p *program) connect(namespace string) any {
	p.Helper()
	return p.must(p.locator(), asMethod, "ConnectServer", ".", namespace, "", "", "MS_409")
}

// items returns all items of a collection, without what comes with them.
func (p *program) items(collection any) []any {
	p.Helper()
	status, out := p.call("next", p.must(collection, asGet, "_NewEnum"), uint32(1000))
	if status != hrOK {
		p.Fatalf("next: %#x", status)
	}
	for i, item := range out {
		if with, ok := item.(List); ok {
			out[i] = with.Items[0]
		}
	}
	return out
}

func (p *program) value(o any, property string) any {
	p.Helper()
	return p.must(p.must(p.must(o, asGet, "Properties_"), asMethod, "Item", property), asGet, "Value")
}

func TestValuesHaveTheFormsOfAutomation(t *testing.T) {
	p := newProgram(t)
	services := p.connect("root/virtualization/v2")
	vm := p.items(p.must(services, asMethod, "ExecQuery", "SELECT * FROM Msvm_ComputerSystem WHERE NumberOfNumaNodes = 1 AND EnabledState = 2"))[0]
	drive := p.items(p.must(services, asMethod, "ExecQuery", "SELECT * FROM Msvm_DiskDrive"))[0]
	for name, c := range map[string]struct{ got, want any }{
		"uint16 is a signed integer of 32 bits":    {p.value(vm, "EnabledState"), int32(2)},
		"a large uint32 is negative":               {p.value(drive, "DriveNumber"), int32(-256)},
		"uint64 is decimal text":                   {p.value(drive, "MaxMediaSize"), "1048576"},
		"an array is one of variants":              {p.value(vm, "OperationalStatus"), List{Of: Variant, Items: []any{int32(2)}}},
		"NULL is null":                             {p.value(vm, "ProcessID"), nil},
		"a property is a member of its object":     {p.must(vm, asGet, "enabledstate"), int32(2)},
		"a collection can be counted":              {p.must(p.must(services, asMethod, "ExecQuery", "SELECT * FROM Msvm_DiskDrive"), asGet, "Count"), int32(1)},
		"a method without parameters has no class": {p.must(p.method("Win32_Service", "StartService"), asGet, "InParameters"), Object(0)},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: %T %v", name, c.got, c.got)
		}
	}
	for value, want := range map[any]any{int64(200): uint8(200), int64(-1): int16(-1), int64(1<<31 + 1): int32(-1<<31 + 1)} {
		kind := map[any]schema.Type{int64(200): "uint8", int64(-1): "int8", int64(1<<31 + 1): "uint32"}[value]
		if got := toVariant(kind, value); got != want {
			t.Errorf("%s %v is %T %v", kind, value, got, got)
		}
	}
}

func (p *program) method(class, name string) any {
	p.Helper()
	definition := p.must(p.connect(`root\cimv2`), asMethod, "Get", class)
	return p.must(p.must(definition, asGet, "Methods_"), asMethod, "Item", name)
}

func TestOtherTypesArePutNowhere(t *testing.T) {
	texts := List{Of: Text, Items: []any{"a"}}
	for _, c := range []struct {
		kind  schema.Type
		value any
		want  any // uint32 is the code of the refusal
	}{
		{"uint8", uint8(200), int64(200)},
		{"uint8", int8(-56), uint32(hrOutOfRange)}, // what the OLE library makes of a byte of 200
		{"uint16", int32(65535), int64(65535)},
		{"uint16", int32(65536), uint32(hrOutOfRange)},
		{"uint16", int32(-1), uint32(hrOutOfRange)},
		{"uint16", uint16(1), uint32(hrTypeMismatch)},
		{"uint16", "1", uint32(hrTypeMismatch)},
		{"uint32", int32(-1), int64(1<<32 - 1)},
		{"uint32", uint32(1), uint32(hrTypeMismatch)},
		{"uint64", "18446744073709551615", uint32(hrTypeMismatch)},
		{"uint64", "9223372036854775807", int64(1<<63 - 1)},
		{"uint64", "-1", uint32(hrOutOfRange)},
		{"uint64", uint64(1), uint32(hrTypeMismatch)},
		{"int64", "-1", int64(-1)},
		{"bool", true, true},
		{"bool", int32(1), uint32(hrTypeMismatch)},
		{"string", "x", "x"},
		{"string", int32(1), uint32(hrTypeMismatch)},
		{"string", texts, uint32(hrTypeMismatch)},
		{"string", nil, nil},
		{"string[]", Missing{}, nil},
		{"string[]", texts, []string{"a"}},
		{"string[]", List{Of: Variant}, []string{}},
		{"string[]", "a", uint32(hrTypeMismatch)},
		{"string[]", List{Of: Variant, Items: []any{"a", nil}}, uint32(hrTypeMismatch)},
		{"uint16[]", List{Of: Variant, Items: []any{int32(1), int32(2)}}, []int64{1, 2}},
		{"uint16[]", texts, uint32(hrTypeMismatch)},
		{"datetime", "yesterday", uint32(hrTypeMismatch)},
		{"ref", "nowhere", uint32(hrTypeMismatch)},
		{"bool", Object(1), uint32(hrTypeMismatch)},
	} {
		got, err := fromVariant(c.kind, c.value)
		if err != nil {
			got = hresult(err)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%T %v put into a %s: %T %v, not %v", c.value, c.value, c.kind, got, got, c.want)
		}
	}
}

func TestMembersThatAreNotThereAreRefused(t *testing.T) {
	p := newProgram(t)
	services := p.connect(`root\virtualization\v2`)
	class := p.must(services, asMethod, "Get", "Msvm_ComputerSystem")
	for name, c := range map[string]struct{ got, want uint32 }{
		"an unknown name":                  {p.status(services, asMethod, "Fetch"), hrNoName},
		"a property that is called":        {p.status(class, asMethod, "Properties_"), hrNoMember},
		"a method that is read":            {p.status(services, asGet, "Get"), hrNoMember},
		"a value that is no text":          {p.status(services, asMethod, "ExecQuery", int32(1)), hrParameterType},
		"an unknown format":                {p.code(class, asMethod, "GetText_", int32(3)), hrParameter},
		"no format":                        {p.status(class, asMethod, "GetText_"), hrParameterCount},
		"a method of a class":              {p.code(class, asMethod, "ExecMethod_", "RequestStateChange"), hrMethod},
		"a class that does not exist":      {p.code(services, asMethod, "Get", "Msvm_Nothing"), hrNotFound},
		"a path that leads nowhere":        {p.code(services, asMethod, "Get", `Msvm_ComputerSystem.Name="x"`), hrNotFound},
		"another server":                   {p.code(p.locator(), asMethod, "ConnectServer", "HV02", `root\cimv2`), hrUnavailable},
		"a user for this machine":          {p.code(p.locator(), asMethod, "ConnectServer", ".", `root\cimv2`, "somebody", "secret"), hrCredentials},
		"a namespace that does not exist":  {p.code(p.locator(), asMethod, "ConnectServer", ".", `root\nothing`), hrNamespace},
		"a class of objects":               {first(p.call("create", "{00000000-0000-0000-0000-000000000000}")), hrNoClass},
		"an object that was never made":    {first(p.call("invoke", Object(99), int32(1), uint32(1))), hrDisconnected},
		"an interface that it has not":     {first(p.call("query", services, interfaceEnumerator)), hrNoInterface},
		"an authentication level too high": {p.code(p.must(services, asGet, "Security_"), asPut, "AuthenticationLevel", int32(7)), hrParameter},
		"a function of nobody":             {first(p.call("nothing")), hrUnexpected},
	} {
		if c.got != c.want {
			t.Errorf("%s: %#x, not %#x", name, c.got, c.want)
		}
	}
	// Errors of a query come with its first item.
	wrong := p.must(services, asMethod, "ExecQuery", "SELECT * FROM Msvm_Nothing")
	if status, _ := p.call("next", p.must(wrong, asGet, "_NewEnum"), uint32(1)); status != hrClass {
		t.Errorf("a query of an unknown class: %#x", status)
	}
}

func first(status uint32, _ []any) uint32 { return status }

func (p *program) status(o any, how access, name string, args ...any) uint32 {
	_, status, _ := p.try(o, how, name, args...)
	return status
}

func (p *program) code(o any, how access, name string, args ...any) uint32 {
	_, _, code := p.try(o, how, name, args...)
	return code
}

func TestObjectsDieWithTheServiceAndAreCounted(t *testing.T) {
	p := newProgram(t)
	locator, services := p.locator(), p.connect(`root\virtualization\v2`)
	p.host.Faults().RestartWMI()
	if status := p.status(services, asMethod, "ExecQuery", "SELECT * FROM Msvm_ComputerSystem"); status != hrUnavailable {
		t.Errorf("a connection of the service before: %#x", status)
	}
	p.must(locator, asMethod, "ConnectServer", ".", `root\virtualization\v2`)
	if got := p.host.Usage().Counts().Objects; got != 4 {
		t.Errorf("%d objects are held", got)
	}
	released := List{Of: Uint64, Items: []any{uint64(services.(Object)), uint64(services.(Object)), uint64(7)}}
	if status, _ := p.p.call(t.Context(), "release", []any{released}); status != hrOK {
		t.Errorf("release: %#x", status)
	}
	p.p.exit()
	if counts := p.host.Usage().Counts(); counts.Objects != 0 || counts.Leaked != 3 {
		t.Errorf("%+v", counts)
	}
}

// TestClusterWantsEncryptedCalls shows what the cluster's provider insists on, and that its methods return nothing.
func TestClusterWantsEncryptedCalls(t *testing.T) {
	p := newProgram(t)
	c := &connection{p: p.p.(*automationProcess), namespace: wmi.NamespaceCluster, session: p.host.Session(wmi.NamespaceCIMv2), security: &security{}}
	o := c.p.hold(c)
	if code := p.code(o, asMethod, "Get", "Win32_Service"); code != hrAccessDenied {
		t.Errorf("a call in the clear: %#x", code)
	}
	p.must(p.must(o, asGet, "Security_"), asPut, "AuthenticationLevel", int32(packetPrivacy))
	if code := p.code(o, asMethod, "Get", "Msvm_Nothing"); code != hrNotFound {
		t.Errorf("an encrypted call: %#x", code)
	}
	if got := c.parameters(schema.Method{Name: "BringOnline"}, true, nil); got != Object(0) {
		t.Errorf("a void method returns %v", got)
	}
}

func TestTextOfAnInstanceIsReadAgain(t *testing.T) {
	p := newProgram(t)
	c := &connection{p: p.p.(*automationProcess), namespace: wmi.NamespaceVirtualization, session: p.host.Session(wmi.NamespaceVirtualization)}
	class, _ := p.host.Schema().Class(wmi.NamespaceVirtualization, "Msvm_VirtualSystemSettingData")
	values := map[string]any{
		"ElementName": `a <b> & "c"` + "\n漢字", "Notes": []string{"", "<x>"}, "BootOrder": []int64{1, 65535}, "SecureBootEnabled": true,
		"HighMmioGapSize": int64(1<<63 - 1), "DebugPort": int64(1<<32 - 1),
	}
	text, err := instanceText(class.Name, class.Properties, values)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.parseText(t.Context(), text)
	if err != nil || got.Class != class.Name || got.Path != "" || !reflect.DeepEqual(got.Properties, values) {
		t.Errorf("%s\nbecame %v, %v", text, got, err)
	}
	inner, err := embeddedObject(text)
	if err != nil || inner.values["DebugPort"] != int64(1<<32-1) || !reflect.DeepEqual(inner.values["Notes"], values["Notes"]) {
		t.Errorf("an object of it has %v, %v", inner, err)
	}
	for _, wrong := range []string{
		"", "no XML", `<INSTANCE CLASSNAME="Msvm_Nothing"/>`, `<INSTANCE CLASSNAME="Msvm_VirtualSystemSettingData"><PROPERTY NAME="Nothing" TYPE="string"/></INSTANCE>`,
		`<INSTANCE CLASSNAME="Msvm_VirtualSystemSettingData"><PROPERTY NAME="Notes" TYPE="string"><VALUE>x</VALUE></PROPERTY></INSTANCE>`,
		`<INSTANCE CLASSNAME="Msvm_VirtualSystemSettingData"><PROPERTY NAME="DebugPort" TYPE="uint32"><VALUE>x</VALUE></PROPERTY></INSTANCE>`,
		`<INSTANCE CLASSNAME="Msvm_VirtualSystemSettingData"><PROPERTY NAME="SecureBootEnabled" TYPE="boolean"><VALUE>x</VALUE></PROPERTY></INSTANCE>`,
	} {
		if got, err := c.parseText(t.Context(), wrong); hresult(err) != hrMethodParameter {
			t.Errorf("%s became %v, %v", wrong, got, err)
		}
	}
}

package crash

import (
	"net"
	"slices"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/shim"
)

// shimRelay stands between the DLLs under Wine and the emulated host, as relay does where HTTP is spoken.
type shimRelay struct {
	tap
	host string // the address at which the host serves its shims
	// members are the names of automation members, by memberKey.
	members sync.Map
}

// memberKey is a member of automation objects: each process has its own numbers.
type memberKey struct {
	process uint64
	number  uint32
}

// serve relays the connections of a listener until that is closed.
func (r *shimRelay) serve(l net.Listener) {
	for {
		program, err := l.Accept()
		if err != nil {
			return
		}
		go r.carry(program)
	}
}

// question is a request whose answer has not come yet.
type question struct {
	process uint64
	request []any
	told    *effects // nil where nobody counts, or nothing happens
	at      point
	child   bool // a child asked, not the process that is killed
}

// carry relays a connection until one of its ends is closed, or the program is killed at an effect. Both ends are read all the time, so that each hears of
// the other's at once.
func (r *shimRelay) carry(program net.Conn) {
	defer program.Close()
	hello, err := shim.ReadFrame(program)
	if err != nil || len(hello) != 4 {
		return
	}
	service, _ := hello[0].(string)
	process, _ := hello[1].(uint64)
	host, err := net.Dial("tcp4", r.host)
	if err != nil {
		return // the host was killed: for the program, its connection ends
	}
	defer host.Close()
	if shim.WriteFrame(host, hello...) != nil {
		return
	}
	asked := make(chan question, 1) // a connection carries one call at a time
	go func() {
		defer host.Close()
		for {
			request, err := shim.ReadFrame(program)
			q := question{process: process, request: request}
			if err != nil || !r.ask(service, &q) {
				return
			}
			asked <- q
			if shim.WriteFrame(host, request...) != nil {
				return
			}
		}
	}()
	for {
		answer, err := shim.ReadFrame(host)
		if err != nil || !r.answer(<-asked, answer) || shim.WriteFrame(program, answer...) != nil {
			return
		}
	}
}

// ask tells the effect of a question, and says whether the program lives after that. The steps of VSS are those of a child of the agent, which lives on
// until it sees that the agent is gone.
func (r *shimRelay) ask(service string, q *question) bool {
	told := r.listener("")
	name := r.effect(service, *q)
	if told == nil || name == "" {
		return true
	}
	q.told, q.at, q.child = told, point{name, told.begin(name), before}, service == "vss"
	return !told.strike(q.at) || q.child
}

// answer notes what an answer tells, and says whether the program lives to hear it.
func (r *shimRelay) answer(q question, answer []any) bool {
	if len(q.request) == 4 && q.request[0] == "names" && len(answer) == 3 {
		name, _ := q.request[3].(string)
		number, _ := answer[1].(uint32)
		r.members.Store(memberKey{q.process, number}, name)
	}
	return q.told == nil || !q.told.strike(point{q.at.effect, q.at.number, after}) || q.child
}

// vssSteps are the methods of IVssBackupComponents by which something happens on the host (vsbackup.h).
var vssSteps = []string{"StartSnapshotSet", "AddToSnapshotSet", "PrepareForBackup", "DoSnapshotSet", "BackupComplete", "DeleteSnapshots"}

// effect names calls as hostEffect does: WMI methods, the switching on of change tracking, and the steps of VSS.
func (r *shimRelay) effect(service string, q question) string {
	function, _ := q.request[0].(string)
	switch {
	case service == "vss" && slices.Contains(vssSteps, function):
		return "host: " + function
	case service == "disk" && function == "SetVirtualDiskInformation":
		return "host: enable change tracking"
	case service == "wmi" && function == "invoke" && len(q.request) > 5: // released objects, object, member, access, and the member's arguments
		number, _ := q.request[3].(int32)
		member, _ := r.members.Load(memberKey{q.process, uint32(number)})
		if method, isText := q.request[5].(string); isText && member == "ExecMethod_" && !onlyTells(method) {
			return "host: " + method
		}
	}
	return ""
}

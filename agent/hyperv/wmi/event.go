package wmi

import "context"

// Classes of events about instances. OperationEvent is the base of the others: a query for it gets all three.
const (
	EventOperation = "__InstanceOperationEvent"
	EventCreation  = "__InstanceCreationEvent"
	EventChange    = "__InstanceModificationEvent"
	EventDeletion  = "__InstanceDeletionEvent"
)

// Watcher is a Session that tells events of its namespace. The sessions of the host's own WMI service and of the emulated host are Watchers.
type Watcher interface {
	// Watch subscribes by a WQL event query, such as
	//
	//	SELECT * FROM __InstanceOperationEvent WITHIN 5 WHERE TargetInstance ISA 'Msvm_ComputerSystem'
	//
	// WITHIN is how often WMI compares the instances, in seconds: what came and went in between is not told. It costs the host a query each time.
	// ctx bounds the subscribing, not the subscription. Errors are those of Session.Query.
	Watch(ctx context.Context, wql string) (Subscription, error)
}

// Subscription is a stream of events. It is for one goroutine.
type Subscription interface {
	// Next waits for the next event. When ctx ends first, it returns the cause of ctx and the subscription goes on. Every other error ends it, most
	// often ErrDisconnected: what happened until the next Watch is not told, so look at everything after it.
	Next(ctx context.Context) (Event, error)

	// Close ends the subscription. A second call does nothing.
	Close() error
}

// Event is one event about an instance.
type Event struct {
	// Class is EventCreation, EventChange or EventDeletion.
	Class string
	// Target is the instance as it is, or for EventDeletion as it was last.
	Target Instance
	// Previous is the instance before an EventChange, and empty otherwise.
	Previous Instance
}

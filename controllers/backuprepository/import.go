package backuprepository

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/catalog"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

const (
	// pageDeadline is how long the keeper may take for one page of the catalog.
	pageDeadline = 10 * time.Minute
	// maxPageFailures is how often in a row a page is asked for.
	maxPageFailures = 5
	// maxUnplaced is how many namespaces the status names.
	maxUnplaced = 32
	// deletionPoll is how soon it is seen that the keeper deletes no image any more.
	deletionPoll = 5 * time.Second
)

// importing is what to do for an import. It goes from page to page: the keeper reads one, and the manager makes what its images lack.
type importing struct {
	// ask is the name of the task that is to read the next page; empty when none is.
	ask string
	// place is the page whose images are to get their objects, or nil.
	place *v1alpha1.CatalogPage
}

// imports answers the present importRequest, unless it was answered.
func (d *decision) imports(repository *v1alpha1.BackupRepository, seen observed, now time.Time) {
	request := repository.Spec.ImportRequest
	if current := d.status.CatalogImport; request != "" && (current == nil || current.Request != request) {
		d.status.CatalogImport = &v1alpha1.CatalogImport{Request: request, StartTime: report.Time(now)}
		d.remove = append(d.remove, tasksOf(seen.pages)...)
		d.goesOn(repository, now, "the import begins")
		return // the status comes first: no image is deleted from then on
	}
	current := d.status.CatalogImport
	if current == nil || current.CompletionTime != nil {
		d.remove = append(d.remove, tasksOf(seen.pages)...)
		return
	}
	name := pageName(repository, current)
	if page := d.pageNamed(name, seen.pages); page != nil {
		d.follow(repository, page, now)
		return
	}
	obstacle := delegation.ReadyObstacle(repository, repository.Name)
	switch {
	case obstacle != nil:
		d.goesOn(repository, now, obstacle.Message)
	case seen.deleting:
		d.goesOn(repository, now, "the keeper deletes an image first")
		d.wait = d.wait.Sooner(report.Wait{For: deletionPoll, Because: "the keeper deletes an image"})
	default:
		d.ask = name
		d.goesOn(repository, now, "the keeper is asked for the catalog")
	}
}

// follow goes on with a page that the keeper was asked for.
func (d *decision) follow(repository *v1alpha1.BackupRepository, page *v1alpha1.AgentTask, now time.Time) {
	switch {
	case delegation.Succeeded(page) && page.Status.Catalog != nil:
		d.place = page.Status.Catalog
	case delegation.Finished(page):
		d.pageFailed(repository, page, now)
	case !overdue(page, now):
		d.goesOn(repository, now, "the keeper reads the catalog") // the watch on tasks wakes it
	default: // nobody took it up: it is asked for again
		d.status.CatalogImport.Failures++
		d.remove = append(d.remove, page)
		d.goesOn(repository, now, "the keeper does not answer")
	}
}

func (d *decision) goesOn(repository *v1alpha1.BackupRepository, now time.Time, what string) {
	current := d.status.CatalogImport
	report.ConditionsOf(&d.status.Conditions, repository.Generation, now).Unknown(v1alpha1.ConditionImported, v1alpha1.ReasonImporting,
		fmt.Sprintf("%d of %d images were looked at; %s", looked(current), current.Total, what))
}

// looked counts the images that an import has come by.
func looked(i *v1alpha1.CatalogImport) int32 {
	n := i.Made + i.Present + i.Unreadable
	for _, u := range i.Unplaced {
		n += u.Images
	}
	return n
}

// pageName is the name of the task that reads the next page: the same however often it is made.
func pageName(repository *v1alpha1.BackupRepository, current *v1alpha1.CatalogImport) string {
	return strings.ToLower(string(v1alpha1.TaskSyncCatalog)) + "-" + repository.Name + "-" +
		digest(string(repository.UID), current.Request, current.After, strconv.Itoa(int(current.Failures)))
}

// pageNamed finds a task, and has all others removed.
func (d *decision) pageNamed(name string, pages []v1alpha1.AgentTask) (page *v1alpha1.AgentTask) {
	for i := range pages {
		if pages[i].Name == name {
			page = &pages[i]
		} else {
			d.remove = append(d.remove, &pages[i])
		}
	}
	return page
}

func tasksOf(items []v1alpha1.AgentTask) (tasks []*v1alpha1.AgentTask) {
	for i := range items {
		tasks = append(tasks, &items[i])
	}
	return tasks
}

// pageFailed has a page read again after a pause, or gives the import up. The words are ours: see failures.
func (d *decision) pageFailed(repository *v1alpha1.BackupRepository, page *v1alpha1.AgentTask, now time.Time) {
	current, failure := d.status.CatalogImport, delegation.FailureOf(page)
	message := fmt.Sprintf("the keeper could not read the catalog (%s; details: AgentTask %s in namespace %s)", failure.Reason, page.Name, page.Namespace)
	due := delegation.FinishTime(page).Add(delegation.Backoff(current.Failures + 1))
	switch {
	case failure.Action == v1alpha1.FailureStall || current.Failures+1 >= maxPageFailures:
		d.ends(now)
		report.ConditionsOf(&d.status.Conditions, repository.Generation, now).False(v1alpha1.ConditionImported, v1alpha1.ReasonImportFailed,
			message+": mend that, and change importRequest to try again")
	case now.Before(due):
		d.goesOn(repository, now, message+"; it tries again")
		d.wait = d.wait.Sooner(report.Until(now, due, "the page is read again"))
	default:
		current.Failures++
		d.goesOn(repository, now, message+"; it tries again")
	}
}

func (d *decision) ends(now time.Time) {
	at := report.Time(now)
	d.status.CatalogImport.CompletionTime = &at
}

// placement is what became of the images of a page.
type placement struct {
	made, present int32
	unplaced      map[unplaced]int32
}

type unplaced struct{ namespace, reason string }

// unplacedReasons say why an image has no object.
var unplacedReasons = map[catalog.Outcome]string{
	catalog.NameTaken: v1alpha1.ReasonNameTaken, catalog.NoNamespace: v1alpha1.ReasonNamespaceMissing, catalog.NamespaceEnding: v1alpha1.ReasonNamespaceMissing,
}

// placed goes on to the next page, or ends the import.
func (d *decision) placed(repository *v1alpha1.BackupRepository, result placement, now time.Time) {
	current, page := d.status.CatalogImport, d.place
	current.Total, current.Failures = page.Total, 0
	current.Made += result.made
	current.Present += result.present
	current.Unreadable += page.Unreadable
	for what, n := range result.unplaced {
		current.Unplaced = count(current.Unplaced, what, n)
	}
	current.After = page.Next
	if page.Next != "" {
		d.goesOn(repository, now, "the next page is due")
		return
	}
	d.ends(now)
	conditions := report.ConditionsOf(&d.status.Conditions, repository.Generation, now)
	counts := fmt.Sprintf("%d BackupImages were made, %d were there", current.Made, current.Present)
	switch {
	case len(current.Unplaced) > 0:
		conditions.False(v1alpha1.ConditionImported, v1alpha1.ReasonImagesUnplaced, counts+". Without one are the images of "+unplacedWords(current.Unplaced)+
			". Mend that, and change importRequest")
	case current.Unreadable > 0:
		conditions.False(v1alpha1.ConditionImported, v1alpha1.ReasonImagesUnreadable, fmt.Sprintf("%s. %d images are damaged, or were not made by an agent", counts, current.Unreadable))
	default:
		conditions.True(v1alpha1.ConditionImported, v1alpha1.ReasonCatalogImported, counts)
	}
}

// count adds images that have no object to those of the same namespace. The first reason that it has counts.
func count(list []v1alpha1.UnplacedImages, what unplaced, n int32) []v1alpha1.UnplacedImages {
	i := slices.IndexFunc(list, func(u v1alpha1.UnplacedImages) bool { return u.Namespace == what.namespace })
	switch {
	case i >= 0:
		list[i].Images += n
	case len(list) < maxUnplaced:
		list = append(list, v1alpha1.UnplacedImages{Namespace: what.namespace, Reason: what.reason, Images: n})
	default:
		list[maxUnplaced-1].Images += n // so that none is left uncounted
	}
	return list
}

// unplacedMeanings are the reasons in words.
var unplacedMeanings = map[string]string{
	v1alpha1.ReasonNamespaceNotAllowed: "is not among allowedNamespaces",
	v1alpha1.ReasonNamespaceMissing:    "does not exist",
	v1alpha1.ReasonNameTaken:           "has other BackupImages of the same names",
}

func unplacedWords(list []v1alpha1.UnplacedImages) string {
	var words []string
	for _, u := range list {
		words = append(words, fmt.Sprintf("namespace %s (%d), which %s", u.Namespace, u.Images, unplacedMeanings[u.Reason]))
	}
	return strings.Join(words, "; ")
}

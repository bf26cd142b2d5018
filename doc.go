// Package registry is an embeddable registry of service providers.
package registry

package sdktest

import (
	"bytes"
	"context"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
)

func awsClients() []Client {
	return []Client{{
		Name: "bedrockruntime", Module: "github.com/aws/aws-sdk-go-v2/service/bedrockruntime", Retries: "`aws.NopRetryer{}`", LLM: true,
		try: web{
			says: awsSays, ask: askBedrock, part: `{"output":{"message":{"role":"assist`,
			streamKind: "application/vnd.amazon.eventstream", stream: awsEvent("serviceUnavailableException", `{"message":"busy"}`),
		}.try,
	}}
}

// awsEvent returns an event with an exception, as streams of AWS have them.
func awsEvent(exception, body string) string {
	var encoded bytes.Buffer
	_ = eventstream.NewEncoder().Encode(&encoded, eventstream.Message{
		Headers: eventstream.Headers{
			{Name: ":message-type", Value: eventstream.StringValue("exception")},
			{Name: ":exception-type", Value: eventstream.StringValue(exception)},
			{Name: ":content-type", Value: eventstream.StringValue("application/json")},
		},
		Payload: []byte(body),
	})
	return encoded.String()
}

// awsSays is the shape of the errors of AWS: a type, which is that of the exception.
func awsSays(fault Fault) (status int, body any, ok bool) {
	var kind string
	switch fault.Problem {
	case Plain, TooLong, Large:
		kind = map[int]string{
			http.StatusBadRequest: "ValidationException", http.StatusForbidden: "AccessDeniedException",
			http.StatusNotFound: "ResourceNotFoundException", http.StatusRequestTimeout: "ModelTimeoutException",
			http.StatusConflict: "ConflictException", http.StatusInternalServerError: "InternalServerException",
			http.StatusServiceUnavailable: "ServiceUnavailableException",
		}[fault.Status]
	case DeadKey:
		status, kind = http.StatusForbidden, "UnrecognizedClientException"
	case NoModel:
		kind = "ResourceNotFoundException"
	case Limit:
		kind = "ThrottlingException"
	case Spent:
		status, kind = http.StatusBadRequest, "ServiceQuotaExceededException"
	case Busy:
		status, kind = http.StatusTooManyRequests, "ModelNotReadyException"
	default:
		return 0, nil, false
	}
	if kind == "" {
		return status, object{"message": "text of the server"}, true
	}
	return status, object{"__type": "com.amazon.coral#" + kind, "message": "text of the server"}, true
}

func askBedrock(ctx context.Context, p place, stream bool) error {
	client := bedrockruntime.New(bedrockruntime.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(p.url), HTTPClient: p.client, Retryer: aws.NopRetryer{},
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "key", SecretAccessKey: "secret"}, nil
		}),
	})
	messages := []types.Message{{Role: types.ConversationRoleUser, Content: []types.ContentBlock{&types.ContentBlockMemberText{Value: "?"}}}}
	if !stream {
		_, err := client.Converse(ctx, &bedrockruntime.ConverseInput{ModelId: aws.String("model"), Messages: messages})
		return err
	}
	output, err := client.ConverseStream(ctx, &bedrockruntime.ConverseStreamInput{ModelId: aws.String("model"), Messages: messages})
	if err != nil {
		return err
	}
	pieces := output.GetStream()
	defer func() { _ = pieces.Close() }()
	for range pieces.Events() {
		continue
	}
	return pieces.Err()
}
